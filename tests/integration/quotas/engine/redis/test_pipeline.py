"""When an event loop's commands leave, on a real server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import redis

from quotas.engine.errors import LimiterUnavailable
from quotas.engine.limits.limiter import CheckRequest, Limiter
from quotas.engine.redis import pipeline as pipelined
from quotas.engine.redis.pipeline import Pipeline
from quotas.engine.redis.scripts import Call
from tests.integration.quotas.engine.limits.conftest import limit

FOREVER = 3600.0


def on_a_loop(valkey: redis.Redis, story: Callable[[Pipeline, Call], Awaitable[Any]]) -> Any:
    """The result of a story with an open pipeline, and a check as its script."""
    limiter = Limiter(valkey, timeout=5.0)
    check = limiter.prepare(CheckRequest([limit("lingers", limit=100, window=3600.0)])).call

    async def run() -> Any:
        pipeline = Pipeline(limiter.transport, lambda work: asyncio.to_thread(work))
        try:
            await pipeline.run(check)  # which opens the connection and loads the script
            return await asyncio.wait_for(story(pipeline, check), 20)
        finally:
            pipeline.close()

    try:
        return asyncio.run(run())
    finally:
        limiter.transport.close()


def test_a_command_that_lingers_leaves_with_the_next_one(valkey: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipelined, "LINGER", FOREVER)

    async def story(pipeline: Pipeline, check: Call) -> bool:
        lingering = pipeline.start(check, linger=True)
        await asyncio.sleep(0.05)
        assert not lingering.done(), "it was sent by itself"
        await pipeline.run(check)
        return lingering.done()  # the replies come in the order of the commands

    assert on_a_loop(valkey, story)


def test_a_command_that_lingers_leaves_by_itself_soon(valkey: redis.Redis) -> None:
    async def story(pipeline: Pipeline, check: Call) -> Any:
        first = await pipeline.start(check, linger=True)
        return [first, await pipeline.start(check, linger=True)]

    assert len(on_a_loop(valkey, story)) == 2


def test_commands_that_were_never_sent_fail_with_their_connection(
    valkey: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipelined, "LINGER", FOREVER)

    async def story(pipeline: Pipeline, check: Call) -> None:
        lingering = pipeline.start(check, linger=True)
        pipeline.close()
        with pytest.raises(LimiterUnavailable):
            await lingering

    on_a_loop(valkey, story)
