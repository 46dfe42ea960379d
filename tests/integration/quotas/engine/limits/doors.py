"""Checks that wait, in threads and on an event loop, behind one face: the same tests are run on both."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from quotas.engine.errors import LimiterUnavailable
from quotas.engine.ids import random_id
from quotas.engine.keys import Keys
from quotas.engine.limits.wait_queue import WaitQueue
from quotas.engine.limits.waiting_async import AsyncWaitingChecks
from quotas.engine.limits.waiting_threads import Checking, WaitingChecks
from quotas.engine.redis.pipeline import Pipeline
from quotas.engine.redis.scripts import Call
from quotas.engine.redis.transport import Transport
from quotas.engine.types import Decision, Limit

Ask = Callable[[Callable[[Transport], Any]], Any]


class Door(Protocol):
    """Blocking checks of this process."""

    def check(self, limits: Sequence[Limit], *, max_wait: float) -> Decision: ...

    def waiting(self) -> int: ...


class LoopDoor:
    """The checks of one event loop, which runs in a thread; `check` blocks for its result."""

    def __init__(self, limiter: Checking, ask: Ask | None, keys: Keys) -> None:
        self.limiter = limiter
        self.pipeline = None if ask is None else Pipeline(ask(lambda transport: transport), _in_thread)
        self.loop = asyncio.new_event_loop()
        self.checks = AsyncWaitingChecks(self.pipeline or _Away(), keys)
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    def check(self, limits: Sequence[Limit], *, max_wait: float) -> Decision:
        work = self.checks.check(_Asking(self.limiter, limits), max_wait=max_wait)
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    def waiting(self) -> int:
        return self.checks.waiting()

    def close(self) -> None:
        if self.pipeline is not None:
            self.loop.call_soon_threadsafe(self.pipeline.close)
        self.loop.call_soon_threadsafe(self.loop.stop)


class _Asking:
    def __init__(self, limiter: Checking, limits: Sequence[Limit]) -> None:
        self.limiter, self.limits, self.token = limiter, limits, random_id()

    async def check(self, *, dry_run: bool) -> Decision:
        return await asyncio.to_thread(self.limiter.check, self.limits, dry_run=dry_run, token=self.token)

    async def refund(self, decision: Decision) -> None:
        raise AssertionError("nobody goes away in these tests")

    def lost(self, error: LimiterUnavailable) -> None:
        """Whether it was charged is of no interest here."""


class _Away:
    """A server that does not answer."""

    async def run(self, call: Call) -> Any:
        raise LimiterUnavailable("away")

    async def send(self, commands: Sequence[bytes]) -> list[Any]:
        raise LimiterUnavailable("away")

    async def listen(self, key: bytes, seconds: float) -> bool:
        raise LimiterUnavailable("away")


async def _in_thread(work: Any) -> Any:
    return await asyncio.to_thread(work)


def open_door(kind: str, limiter: Checking, ask: Ask | None, keys: Keys) -> WaitingChecks | LoopDoor:
    """`kind`: `threads` or `loop`. `ask` None: the queues are this process's own."""
    if kind == "loop":
        return LoopDoor(limiter, ask, keys)
    return WaitingChecks(limiter, WaitQueue(ask, keys) if ask is not None else None, keys=keys)
