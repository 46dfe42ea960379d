"""Callers of an event loop that go away while they wait, at any moment: none of the others is forgotten."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

import pytest
import redis

from quotas.engine.ids import random_id
from quotas.engine.limits.limiter import Limiter
from quotas.engine.types import Decision, Limit
from tests.integration.quotas.engine.limits.conftest import limit
from tests.integration.quotas.engine.limits.doors import LoopDoor

RATE = 25
DEADLINE = 15.0
"""Seconds in which all must have been served; a waiter that was forgotten would wait for `max_wait`."""


class Asking:
    """One check, which notes what becomes of its charge."""

    def __init__(self, limiter: Limiter, limits: list[Limit]) -> None:
        self.limiter, self.limits, self.token = limiter, limits, random_id()
        self.refunded = 0

    async def check(self, *, dry_run: bool) -> Decision:
        return await asyncio.to_thread(self.limiter.check, self.limits, dry_run=dry_run, token=self.token)

    async def refund(self, decision: Decision) -> None:
        self.refunded += 1

    def lost(self, error: Exception) -> None:
        raise AssertionError(f"the server answers in this test: {error}")


@pytest.fixture
def door(valkey: redis.Redis) -> Iterator[LoopDoor]:
    limiter = Limiter(valkey)
    made = LoopDoor(limiter, lambda work: work(limiter.transport), limiter.keys)
    yield made
    made.close()
    limiter.transport.close()


@pytest.mark.parametrize("algorithm", ["token_bucket", "sliding_window"])
def test_those_who_stay_are_served_whoever_leaves(door: LoopDoor, algorithm: str) -> None:
    one = limit("w", algorithm, limit=RATE, window=1.0, **({"burst": 1} if algorithm == "token_bucket" else {}))
    chance = random.Random(7)

    async def story() -> None:
        askings = [Asking(door.limiter, [one]) for _ in range(2 * RATE)]  # type: ignore[arg-type]
        waiting = [asyncio.ensure_future(door.checks.check(asking, max_wait=120)) for asking in askings]
        leaving = 0
        while leaving < RATE:
            await asyncio.sleep(chance.random() * 0.03)
            pending = [one for one in waiting if not one.done()]
            if not pending:
                break
            # Most of those who leave are near the front, where they are called and call others.
            chance.choice(pending[:4]).cancel()
            leaving += 1
        served, unserved = await asyncio.wait(waiting, timeout=DEADLINE)
        assert not unserved, f"{len(unserved)} were forgotten"
        allowed = [task for task in served if not task.cancelled()]
        assert len(allowed) >= RATE and all(task.result().allowed for task in allowed)
        assert all(not asking.refunded for asking, task in zip(askings, waiting, strict=True) if not task.cancelled())

    asyncio.run_coroutine_threadsafe(story(), door.loop).result(60)
    assert door.waiting() == 0
