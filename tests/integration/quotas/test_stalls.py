"""Redis stops for a moment: callers that wait for capacity wait for Redis too, and are charged once, although the
server runs later what was sent to it."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from quotas import limits, pools
from quotas.engine.errors import LimiterUnavailable
from quotas.engine.limits.fallback import ResilientLimiter
from quotas.engine.limits.limiter import Limiter
from quotas.models import Account
from quotas.runtime import connection
from quotas.services.account_lease import Lease
from quotas.services.deferred_settlement import late
from tests.integration.quotas.api.conftest import empty, policy
from tests.integration.quotas.api.test_pools import make_pool
from tests.integration.quotas.engine.limits.conftest import limit
from tests.integration.quotas.engine.limits.doors import LoopDoor, open_door
from tests.integration.quotas.test_limits import used
from tests.integration.quotas.upstream.clients import Answer
from tests.support.limiter_server import limiter_at
from tests.support.valkey import Server, run_server, valkey_binary, wait_for

__all__ = ["empty"]
STALL = 0.4
"""Seconds: several timeouts of the limiter."""


@pytest.fixture
def server(empty: None) -> Iterator[Server]:
    """A server that may be stopped."""
    with run_server(valkey_binary()) as server, limiter_at(server.unix_url, LIMITER_TIMEOUT=0.1):
        yield server


@contextmanager
def stopped(server: Server, seconds: float = STALL) -> Iterator[None]:
    """The server stops at once, and continues after so long or at the end."""
    again = threading.Timer(seconds, server.process.send_signal, [signal.SIGCONT])
    server.process.send_signal(signal.SIGSTOP)
    again.start()
    try:
        yield
    finally:
        again.cancel()
        server.process.send_signal(signal.SIGCONT)


def checked() -> bool:
    return bool(limits.check(user="u", max_wait=10))


async def _checked() -> bool:
    return bool(await limits.check_async(user="u", max_wait=10))


def reserved() -> bool:
    with limits.reserve(user="u", max_wait=10) as reservation:
        return bool(reservation)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("check", [checked, lambda: asyncio.run(_checked()), reserved], ids=["thread", "loop", "block"])
def test_a_check_that_waits_passes_a_stall_and_is_charged_once(server: Server, check: Callable[[], bool]) -> None:
    policy("users", "user", 1000)
    assert limits.check(user="u")
    with stopped(server):
        assert check()
    assert used("users") == 2


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("kind", ["threads", "loop"])
def test_who_waits_behind_another_one_passes_a_stall_too(server: Server, kind: str) -> None:
    """In the queues of the server, which does not answer meanwhile."""
    one = limit("w", "token_bucket", limit=4, window=1.0, burst=1)
    with server.client() as client:
        resilient = ResilientLimiter(Limiter(client, timeout=0.1), probe_every=0.05)
        door = open_door(kind, resilient, resilient.ask, resilient.limiter.keys)
        assert door.check([one], max_wait=0)
        answers: list[bool] = []
        threads = [
            threading.Thread(target=lambda: answers.append(bool(door.check([one], max_wait=20)))) for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        wait_for(lambda: door.waiting() > 0)
        with stopped(server):
            for thread in threads:
                thread.join()
        if isinstance(door, LoopDoor):
            door.close()
    assert answers == [True] * 3


def acquired() -> Lease:
    return pools.get("llm").acquire(max_wait=10)


async def _acquired() -> None:
    async with pools.get("llm").acquire_async(max_wait=10):
        pass


def called() -> None:
    pools.get("llm").call(lambda lease: Answer(200))


async def _called() -> None:
    async def fn(lease: Lease) -> Answer:
        return Answer(200)

    await pools.get("llm").call_async(fn)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "acquire",
    [lambda: acquired().end(None), lambda: asyncio.run(_acquired()), called, lambda: asyncio.run(_called())],
    ids=["acquire", "acquire_async", "call", "call_async"],
)
def test_an_acquisition_that_waits_passes_a_stall_and_takes_one_account(
    server: Server, acquire: Callable[[], None]
) -> None:
    make_pool(accounts=2, limit=100)
    acquired().end(None)
    with stopped(server):
        acquire()
    states = pools.get("llm").states()
    assert sum(state.in_flight for state in states) == 0
    assert sum(state.successes for state in states) == 2


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("max_wait", [0.0, 0.2])
def test_what_was_charged_without_an_answer_is_returned(server: Server, max_wait: float) -> None:
    make_pool(accounts=2, limit=100)
    policy("inflight", "user", 5, algorithm="concurrency", window=None)
    assert limits.check(user="u")
    acquired().end(None)
    with stopped(server, 60):
        with pytest.raises(LimiterUnavailable):
            pools.get("llm").acquire(max_wait=max_wait)
        if max_wait:
            connection.limiter().breaker._change(False, "so that the server is called")
            with pytest.raises(LimiterUnavailable):
                limits.check(user="u", max_wait=max_wait)
        assert len(late) >= 1
    wait_for(lambda: len(late) == 0, 20)
    wait_for(connection.limiter().breaker.allows, 20)
    assert [state.in_flight for state in pools.get("llm").states()] == [0, 0]
    assert used("inflight") == 1
    assert Account.objects.count() == 2
