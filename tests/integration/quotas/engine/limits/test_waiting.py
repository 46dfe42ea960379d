"""Blocking checks: in order of arrival in all processes together, with hardly a question, never longer than asked."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from quotas.engine.keys import Keys
from quotas.engine.limits.limiter import Limiter
from quotas.engine.limits.wait_queue import WaitQueue
from quotas.engine.limits.waiting import WaitingLine
from quotas.engine.types import Decision, Limit
from tests.integration.quotas.engine.limits.conftest import limit
from tests.integration.quotas.engine.limits.waiter import EVERYONE, RATE, limits_of
from tests.support.valkey import Server, wait_for

KEYS = Keys()
LINE = KEYS.key("w", KEYS.counter(EVERYONE).decode())


class Counting(Limiter):
    """A limiter that counts how often it was asked."""

    asked = 0

    def check(self, limits, **options) -> Decision:  # type: ignore[no-untyped-def, override]
        self.asked += 1
        return super().check(limits, **options)


@pytest.fixture
def limiter(valkey: redis.Redis) -> Iterator[Counting]:
    made = Counting(valkey)
    yield made
    made.transport.close()


@pytest.fixture(params=["alone", "shared"])
def queue(request: pytest.FixtureRequest, limiter: Counting) -> WaitQueue | None:
    """None for a line of the process's own, or what shares it through the server."""
    return WaitQueue(lambda ask: ask(limiter.transport), limiter.keys) if request.param == "shared" else None


@pytest.fixture
def line(queue: WaitQueue | None, limiter: Counting) -> WaitingLine:
    return WaitingLine(limiter, queue)


def test_threads_are_served_in_order_of_arrival(line: WaitingLine, limiter: Counting) -> None:
    one = limit("w", "token_bucket", limit=20, window=1.0, burst=1)
    assert line.check([one], max_wait=0)
    order: list[int] = []

    def ask(number: int) -> None:
        if line.check([one], max_wait=30):
            order.append(number)

    threads = []
    for number in range(10):
        thread = threading.Thread(target=ask, args=(number,))
        before = line.waiting()
        thread.start()
        wait_for(lambda before=before, number=number: line.waiting() > before or len(order) > number)  # type: ignore[misc]
        threads.append(thread)
    for thread in threads:
        thread.join()
    assert order == sorted(order) and len(order) == 10
    assert limiter.asked <= 1 + 4 * 10
    assert line.waiting() == 0


def test_a_wait_that_is_too_long_is_refused_at_once(queue: WaitQueue | None, limiter: Counting) -> None:
    line = WaitingLine(limiter, queue, sleep=lambda seconds: pytest.fail("slept"))
    one = limit("w", "fixed_window", limit=1, window=86400.0 * 30)
    assert line.check([one], max_wait=5)
    denied = line.check([one], max_wait=5)
    assert not denied and denied.retry_after and denied.retry_after > 5
    hopeless: Limit = limit("z", limit=0)
    assert line.check([hopeless], max_wait=5).retry_after is None
    assert line.check([limit("i", limit=3, cost=4)], max_wait=5).impossible
    assert limiter.asked == 4


def test_whose_time_is_up_gets_the_denial(line: WaitingLine) -> None:
    slow = limit("w", "token_bucket", limit=1, window=3600.0, burst=1)
    assert line.check([slow], max_wait=0)
    held = limit("c", "concurrency", limit=1, lease_ttl=3.0)
    assert line.check([held], max_wait=0)
    denied = line.check([held, slow], max_wait=0.3)
    assert not denied and denied.binding == "w"


# -- several processes ---------------------------------------------------------------------------------------------


class Crowd:
    """Waiters in processes of their own, all of them held up by the same limit."""

    def __init__(self, server: Server, client: redis.Redis, processes: int, max_wait: float = 60.0) -> None:
        self.client = client
        self.limiter = Limiter(client)
        command = [
            sys.executable,
            "-m",
            "tests.integration.quotas.engine.limits.waiter",
            str(server.port),
            str(max_wait),
        ]
        root = Path(__file__).parents[5]
        self.processes = [
            subprocess.Popen(command, stdin=subprocess.PIPE, text=True, cwd=root) for _ in range(processes)
        ]
        self.arrived = 0

    def hold_up(self, seconds: float) -> None:
        """Overdraw the shared limit, so that it refuses everybody for some seconds."""
        held = self.limiter.check([EVERYONE], reserve=True)
        assert held.reservation is not None
        self.limiter.settle(held.reservation, {"requests": 1 + round(seconds * RATE)})

    def arrive(self, process: int, user: str) -> None:
        """One more waiter, seen in the line (or served already) before the next one comes."""
        stdin = self.processes[process].stdin
        assert stdin is not None
        stdin.write(f"{self.arrived} {user}\n")
        stdin.flush()
        self.arrived += 1
        wait_for(lambda: self.standing() + len(self.served()) >= self.arrived, 30)

    def standing(self) -> int:
        return int(self.client.zcard(LINE))

    def served(self) -> list[int]:
        return [int(name) for name in self.client.lrange("served", 0, -1)]

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()
        self.limiter.transport.close()


@pytest.fixture
def crowd(valkey_server: Server, valkey: redis.Redis) -> Iterator[Callable[..., Crowd]]:
    crowds: list[Crowd] = []

    def make(processes: int, **options: float) -> Crowd:
        crowds.append(Crowd(valkey_server, valkey, processes, **options))
        return crowds[-1]

    yield make
    for one in crowds:
        one.end()


def test_processes_share_one_queue_whatever_other_limits_apply(crowd: Callable[..., Crowd]) -> None:
    waiters = crowd(3)
    waiters.hold_up(3)
    for number in range(12):
        waiters.arrive(number % 3, f"user-{number % 5}")
    wait_for(lambda: len(waiters.served()) == 12, 60)
    assert waiters.served() == list(range(12))
    wait_for(lambda: waiters.standing() == 0)


def test_a_killed_waiter_holds_nobody_up_for_good(crowd: Callable[..., Crowd]) -> None:
    waiters = crowd(2)
    waiters.hold_up(2)
    waiters.arrive(0, "first")
    for _ in range(3):
        waiters.arrive(1, "others")
    waiters.processes[0].kill()
    wait_for(lambda: len(waiters.served()) >= 3, 60)
    assert [number for number in waiters.served() if number] == [1, 2, 3]


def test_places_are_kept_when_the_server_forgets_the_line(crowd: Callable[..., Crowd], valkey: redis.Redis) -> None:
    waiters = crowd(2)
    waiters.hold_up(4)
    for number in range(6):
        waiters.arrive(number % 2, "u")
    assert valkey.delete(LINE, KEYS.key("w", KEYS.counter(EVERYONE).decode(), "e")) == 2
    wait_for(lambda: waiters.standing() + len(waiters.served()) == 6, 30)
    wait_for(lambda: len(waiters.served()) == 6, 60)
    assert waiters.served() == list(range(6))


def test_waiting_asks_the_server_a_bounded_number_of_times(crowd: Callable[..., Crowd], valkey: redis.Redis) -> None:
    waiters = crowd(2)
    waiters.hold_up(60)
    for number in range(20):
        waiters.arrive(number % 2, f"user-{number}")
    began, before = time.monotonic(), commands(valkey)
    wait_for(lambda: time.monotonic() - began > 3)
    asked, seconds = commands(valkey) - before, time.monotonic() - began
    assert waiters.standing() == 20 and waiters.served() == []
    # Of each process one waiter speaks: once a second it renews all tickets, and asks or sleeps in one read.
    assert asked <= 2 * 2 * (seconds + 2), f"{asked} in {seconds:.1f} s by 2 processes with 20 waiters"


def commands(client: redis.Redis) -> int:
    """Calls from clients so far; what scripts call inside is left out."""
    stats = client.info("commandstats")
    asked = ("evalsha", "fcall", "fcall_ro", "blpop", "exists", "rpush", "ping")
    return sum(int(stats[f"cmdstat_{name}"]["calls"]) for name in asked if f"cmdstat_{name}" in stats)


def test_limits_of_the_waiters_are_charged_once_each(crowd: Callable[..., Crowd]) -> None:
    waiters = crowd(2)
    for number in range(6):
        waiters.arrive(number % 2, "u")
    wait_for(lambda: len(waiters.served()) == 6, 60)
    assert waiters.limiter.peek(limits_of("u"))[0].used == 6
