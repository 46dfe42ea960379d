"""Checks that wait: in order of arrival in all processes together, with few calls, never longer than requested.

Each test runs on both doors: checks that block threads, and checks of an event loop.
"""

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
from quotas.engine.types import Decision, Limit
from tests.integration.quotas.engine.limits.conftest import limit
from tests.integration.quotas.engine.limits.doors import Ask, Door, LoopDoor, open_door
from tests.integration.quotas.engine.limits.waiter import EVERYONE, RATE, limits_of
from tests.support.valkey import Server, wait_for

KEYS = Keys()
QUEUE = KEYS.key("w", KEYS.counter(EVERYONE).decode())


class Counting(Limiter):
    """A limiter that counts its calls, and records the names of the limits that it charged, in order."""

    asked = 0

    def __init__(self, client: redis.Redis) -> None:
        super().__init__(client)
        self.charged: list[str] = []

    def check(self, limits, **options) -> Decision:  # type: ignore[no-untyped-def, override]
        self.asked += 1
        decision = super().check(limits, **options)
        if decision and not options.get("dry_run"):
            self.charged.append(limits[0].name)
        return decision


@pytest.fixture
def limiter(valkey: redis.Redis) -> Iterator[Counting]:
    made = Counting(valkey)
    yield made
    made.transport.close()


@pytest.fixture(params=["alone", "shared"])
def ask(request: pytest.FixtureRequest, limiter: Counting) -> Ask | None:
    """None for queues of the process's own, or what shares them through the server."""
    return (lambda work: work(limiter.transport)) if request.param == "shared" else None


@pytest.fixture(params=["threads", "loop"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def door(kind: str, ask: Ask | None, limiter: Counting) -> Iterator[Door]:
    made = open_door(kind, limiter, ask, limiter.keys)
    yield made
    if isinstance(made, LoopDoor):
        made.close()


def test_checks_are_served_in_order_of_arrival(door: Door, limiter: Counting) -> None:
    def named(name: str) -> Limit:
        return limit("w", "token_bucket", name=name, limit=20, window=1.0, burst=1)

    assert door.check([named("first")], max_wait=0)
    names = [str(number) for number in range(10)]
    threads = []
    for name in names:
        thread = threading.Thread(target=lambda name=name: door.check([named(name)], max_wait=30))
        before = door.waiting()
        thread.start()
        wait_for(lambda before=before, name=name: door.waiting() > before or name in limiter.charged)  # type: ignore[misc]
        threads.append(thread)
    for thread in threads:
        thread.join()
    assert limiter.charged == ["first", *names]
    assert limiter.asked <= 1 + 4 * 10
    assert door.waiting() == 0


def test_a_wait_that_is_too_long_is_refused_at_once(door: Door, limiter: Counting) -> None:
    began = time.monotonic()
    one = limit("w", "fixed_window", limit=1, window=86400.0 * 30)
    assert door.check([one], max_wait=5)
    denied = door.check([one], max_wait=5)
    assert not denied and denied.retry_after and denied.retry_after > 5
    impossible: Limit = limit("z", limit=0)
    assert door.check([impossible], max_wait=5).retry_after is None
    assert door.check([limit("i", limit=3, cost=4)], max_wait=5).impossible
    assert limiter.asked == 4
    assert time.monotonic() - began < 5, "it did not wait"


def test_whose_time_is_up_gets_the_denial(door: Door) -> None:
    slow = limit("w", "token_bucket", limit=1, window=3600.0, burst=1)
    assert door.check([slow], max_wait=0)
    slot = limit("c", "concurrency", limit=1, lease_ttl=3.0)
    assert door.check([slot], max_wait=0)
    denied = door.check([slot, slow], max_wait=0.3)
    assert not denied and denied.binding == "w"


# -- several processes ---------------------------------------------------------------------------------------------


class Crowd:
    """Waiters in processes of their own, all of them delayed by the same limit."""

    def __init__(self, server: Server, client: redis.Redis, processes: int, kind: str, max_wait: float = 60.0) -> None:
        self.client = client
        self.limiter = Limiter(client)
        command = [
            sys.executable,
            "-m",
            "tests.integration.quotas.engine.limits.waiter",
            str(server.port),
            str(max_wait),
            kind,
        ]
        root = Path(__file__).parents[5]
        self.processes = [
            subprocess.Popen(command, stdin=subprocess.PIPE, text=True, cwd=root) for _ in range(processes)
        ]
        self.arrived = 0

    def overdraw(self, seconds: float) -> None:
        """Overdraw the shared limit, so that it refuses everybody for some seconds."""
        charged = self.limiter.check([EVERYONE], reserve=True)
        assert charged.reservation is not None
        self.limiter.settle(charged.reservation, {"requests": 1 + round(seconds * RATE)})

    def arrive(self, process: int, user: str) -> None:
        """One more waiter, seen in the queue (or served already) before the next one comes."""
        stdin = self.processes[process].stdin
        assert stdin is not None
        stdin.write(f"{self.arrived} {user}\n")
        stdin.flush()
        self.arrived += 1
        wait_for(lambda: self.queued() + len(self.served()) >= self.arrived, 30)

    def queued(self) -> int:
        return int(self.client.zcard(QUEUE))

    def served(self) -> list[int]:
        return [int(name) for name in self.client.lrange("served", 0, -1)]

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()
        self.limiter.transport.close()


@pytest.fixture
def crowd(valkey_server: Server, valkey: redis.Redis, kind: str) -> Iterator[Callable[..., Crowd]]:
    crowds: list[Crowd] = []

    def make(processes: int, **options: float) -> Crowd:
        crowds.append(Crowd(valkey_server, valkey, processes, kind, **options))
        return crowds[-1]

    yield make
    for one in crowds:
        one.end()


def test_processes_share_one_queue_whatever_other_limits_apply(crowd: Callable[..., Crowd]) -> None:
    waiters = crowd(3)
    waiters.overdraw(3)
    for number in range(12):
        waiters.arrive(number % 3, f"user-{number % 5}")
    wait_for(lambda: len(waiters.served()) == 12, 60)
    assert waiters.served() == list(range(12))
    wait_for(lambda: waiters.queued() == 0)


def test_a_killed_waiter_delays_the_others_only_briefly(crowd: Callable[..., Crowd]) -> None:
    waiters = crowd(2)
    waiters.overdraw(2)
    waiters.arrive(0, "first")
    for _ in range(3):
        waiters.arrive(1, "others")
    waiters.processes[0].kill()
    wait_for(lambda: len(waiters.served()) >= 3, 60)
    assert [number for number in waiters.served() if number] == [1, 2, 3]


def test_positions_survive_when_the_server_loses_the_queue(crowd: Callable[..., Crowd], valkey: redis.Redis) -> None:
    waiters = crowd(2)
    waiters.overdraw(4)
    for number in range(6):
        waiters.arrive(number % 2, "u")
    assert valkey.delete(QUEUE, KEYS.key("w", KEYS.counter(EVERYONE).decode(), "e")) == 2
    wait_for(lambda: waiters.queued() + len(waiters.served()) == 6, 30)
    wait_for(lambda: len(waiters.served()) == 6, 60)
    assert waiters.served() == list(range(6))


def test_waiting_asks_the_server_a_bounded_number_of_times(crowd: Callable[..., Crowd], valkey: redis.Redis) -> None:
    waiters = crowd(2)
    waiters.overdraw(60)
    for number in range(20):
        waiters.arrive(number % 2, f"user-{number}")
    began, before = time.monotonic(), commands(valkey)
    wait_for(lambda: time.monotonic() - began > 3)
    asked, seconds = commands(valkey) - before, time.monotonic() - began
    assert waiters.queued() == 20 and waiters.served() == []
    # Of each process one waiter calls the server: once a second it renews all tickets, and checks or sleeps in one read.
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
