"""Checks on event loops that are not asyncio's own: their transports have its methods, and none of its classes."""

from __future__ import annotations

import asyncio
import selectors
from typing import Any

import redis

from quotas.engine.limits.limiter import CheckRequest, Limiter
from quotas.engine.redis import pipeline as pipelined
from quotas.engine.redis.pipeline import Pipeline
from quotas.engine.types import Decision
from tests.integration.quotas.engine.limits.conftest import limit


class OtherTransport:
    """As uvloop's: a transport by what it can do, whatever it is derived from."""

    def __init__(self, inner: asyncio.Transport) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class OtherLoop(asyncio.SelectorEventLoop):
    """An event loop that hands such transports to its protocols."""

    def _make_socket_transport(self, sock: Any, protocol: Any, waiter: Any = None, **given: Any) -> Any:
        connected = protocol.connection_made
        protocol.connection_made = lambda transport: connected(OtherTransport(transport))
        return super()._make_socket_transport(sock, protocol, waiter, **given)  # type: ignore[misc]


def test_checks_are_answered_on_any_event_loop(valkey: redis.Redis) -> None:
    limiter = Limiter(valkey, timeout=5.0)
    one = limit("other-loop", limit=2, window=3600.0)

    async def in_thread(work: Any) -> Any:
        return work()

    async def ask() -> list[Decision]:
        pipeline = Pipeline(limiter.transport, in_thread)
        try:
            return [await pipelined.check(limiter, pipeline, CheckRequest([one])) for _ in range(3)]
        finally:
            pipeline.close()

    loop = OtherLoop(selectors.DefaultSelector())
    try:
        found = loop.run_until_complete(ask())
    finally:
        loop.close()
    assert [decision.allowed for decision in found] == [True, True, False]
