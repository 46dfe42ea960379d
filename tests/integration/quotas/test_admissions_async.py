"""Admissions and settlements that an event loop sends without a task of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from quotas import pools
from quotas.engine.ids import random_id
from quotas.engine.types import Admission, AdmitRequest, CallOutcome, Limit
from quotas.runtime.connection import limiter
from quotas.services.admissions_async import AsyncAdmissions, Lease
from quotas.services.limits_async import AsyncChecks
from quotas.snapshot import resolve
from quotas.snapshot.config import ConfigSnapshot
from tests.integration.quotas.api.test_pools import make_pool
from tests.integration.quotas.upstream.conftest import empty, fresh

__all__ = ["empty", "fresh"]
TOKENS = Limit("t", "tokens", "user", "u", "fixed_window", 1000, unit="tokens", cost=100, window=3600.0)


class Loop:
    """What a gateway has for its loop: connected, with the configuration as it is then."""

    def __init__(self) -> None:
        self.background: list[asyncio.Future[Any]] = []
        self.undone: list[Admission] = []
        self._checks = AsyncChecks(asyncio.to_thread, asyncio.to_thread)
        self.engine = AsyncAdmissions(self._checks, asyncio.to_thread, self._run)

    def _run(self, work: Coroutine[Any, Any, Any]) -> asyncio.Future[Any]:
        self.background.append(asyncio.ensure_future(work))
        return self.background[-1]

    async def admit(self, config: ConfigSnapshot) -> Admission:
        request = AdmitRequest(pool=config.pools["llm"].spec, limits=(TOKENS,), token=random_id())
        return await self.engine.admit_or_undo(request, self._undo)

    async def _undo(self, asked: Awaitable[Admission]) -> None:
        self.undone.append(await asked)

    async def settle(self, admission: Admission, tokens: int, config: ConfigSnapshot) -> None:
        assert admission.lease is not None
        lease = Lease(admission.lease, CallOutcome("ok", usage={"tokens": tokens}), admission.expires_in)
        await asyncio.wait(
            [
                self.engine.start_settling(lease, config),
                self.engine.start_closing(admission, {"tokens": tokens}, lease.outcome, config),
            ]
        )
        await asyncio.gather(*self.background)

    def close(self) -> None:
        self._checks.close()


def run(work: Callable[[Loop, ConfigSnapshot], Coroutine[Any, Any, None]]) -> None:
    make_pool(accounts=1)
    config = resolve.snapshot()

    async def whole() -> None:
        loop = Loop()
        try:
            await work(loop, config)
        finally:
            loop.close()

    asyncio.run(whole())


def state() -> tuple[int, int]:
    """Calls in flight, and tokens charged."""
    (account,) = pools.get("llm").states()
    return account.in_flight or 0, limiter().limiter.peek([TOKENS])[0].used


def test_a_caller_that_is_cancelled_leaves_its_admission_to_be_undone() -> None:
    async def work(loop: Loop, config: ConfigSnapshot) -> None:
        await loop.settle(await loop.admit(config), 30, config)  # opens the connection
        assert await asyncio.to_thread(state) == (0, 30)
        asked = asyncio.ensure_future(loop.admit(config))
        await asyncio.sleep(0)  # sent, and not answered yet
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        await asyncio.gather(*loop.background)
        (undone,) = loop.undone
        assert undone.allowed and await asyncio.to_thread(state) == (1, 130)
        await loop.settle(undone, 0, config)
        assert await asyncio.to_thread(state) == (0, 30)

    run(work)


def test_a_server_that_has_lost_its_scripts_is_asked_again_and_charges_once() -> None:
    async def work(loop: Loop, config: ConfigSnapshot) -> None:
        def lose_scripts() -> None:
            limiter().limiter.transport.command("FUNCTION", "FLUSH")

        await loop.settle(await loop.admit(config), 30, config)
        await asyncio.to_thread(lose_scripts)
        admission = await loop.admit(config)
        assert await asyncio.to_thread(state) == (1, 130)
        await asyncio.to_thread(lose_scripts)
        await loop.settle(admission, 50, config)
        assert await asyncio.to_thread(state) == (0, 80)

    run(work)
