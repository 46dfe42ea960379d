"""Redis emptied, away and hung, PostgreSQL away: what was accepted is done all the same, once.

The normal tier has each small on one instance with PostgreSQL and a Redis of its own; the long one at full size.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.acceptance.failure_instance import failure_instance, submit
from tests.acceptance.fleet import fleet
from tests.acceptance.invariants import assert_consistent, attempts, charged, counts, wait_for_the_end
from tests.support.instance import wait_until
from tests.support.shapes import BOTH, EMBEDDED, SEPARATE, Place


@pytest.fixture(scope="module")
def separate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with failure_instance(SEPARATE, tmp_path_factory.mktemp("scratch")) as made:
        yield made


class Callers:
    """Clients that submit without a break, each job under a key of its own. `received` counts the statuses."""

    def __init__(self, place: Place, threads: int = 3) -> None:
        self.place = place
        self.received: Counter[int] = Counter()
        self.accepted: list[str] = []
        self.slowest = 0.0
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._go_on, args=(number,)) for number in range(threads)]

    def _go_on(self, thread: int) -> None:
        with self.place.instance.client() as client:
            while not self._stop.is_set():
                body = {"type": "t.echo", "queue": "batch", "project": "acme", "payload": {"text": "x"}}
                begun = time.monotonic()
                key = {"Idempotency-Key": f"{thread}-{time.time_ns()}"}
                answer = client.post("/api/v1/jobs", json=body, headers=key)
                with self._lock:
                    self.slowest = max(self.slowest, time.monotonic() - begun)
                    self.received[answer.status_code] += 1
                    if answer.status_code == 202:
                        self.accepted.append(answer.json()["id"])
                self._stop.wait(0.05)

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


@contextmanager
def outage(place: Place, seconds: float) -> Iterator[None]:
    """Redis is hung (embedded) or gone (separate) for that long; the block runs meanwhile."""
    begun = time.monotonic()
    if place.redis is None:
        (pid,) = place.instance.pids("valkey")
        os.kill(pid, signal.SIGSTOP)
        back: Callable[[], None] = lambda: os.kill(pid, signal.SIGCONT)  # noqa: E731
    else:
        place.redis.stop()
        back = place.redis.start_again
    try:
        yield
        time.sleep(max(begun + seconds - time.monotonic(), 0.0))  # so long is it away
    finally:
        back()


# Redis away


def redis_away(place: Place, seconds: float) -> None:
    with fleet(place.instance) as workers:
        workers.start("io", "--concurrency", "10")
        running = submit(place, 15, payload={"seconds": 2.0}, max_attempts=1)
        wait_until(lambda: counts(place, running)["executing"] >= 10, 60)
        with Callers(place) as callers:
            wait_until(lambda: callers.received[202] >= 10, 30)
            with outage(place, seconds):
                pass
            before = len(callers.accepted)
            wait_until(lambda: len(callers.accepted) >= before + 10, 30)
        assert set(callers.received) <= {202, 503}, callers.received
        ids = [*running, *callers.accepted]
        wait_for_the_end(place, ids, 90)
        assert_consistent(place, ids)
        assert charged(place, ids) == 0
    print(f"Redis away for {seconds:g} s: {dict(callers.received)}, slowest answer {callers.slowest:.2f} s")


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("shape", BOTH)
def test_redis_away_for_twenty_seconds_while_jobs_are_submitted(shape: str, tmp_path: Path) -> None:
    with failure_instance(shape, tmp_path) as place:
        redis_away(place, 20.0)


@pytest.mark.postgres
@pytest.mark.timeout(240)
def test_redis_away_while_jobs_are_submitted(separate: Place) -> None:
    redis_away(separate, 4.0)


# PostgreSQL away


def postgres_away(place: Place, seconds: float, jobs: int) -> None:
    assert place.postgres is not None
    with fleet(place.instance) as workers:
        for _ in range(2):
            workers.start("io", "--concurrency", "10")
        running = submit(place, jobs, payload={"seconds": 1.0}, max_attempts=1)
        wait_until(lambda: counts(place, running)["executing"] >= 15, 60)
        with Callers(place) as callers:
            wait_until(lambda: callers.received[202] >= 10, 30)
            place.postgres.stop()
            gone = time.monotonic()
            wait_until(lambda: callers.received[503] >= 3 and time.monotonic() - gone >= seconds, seconds + 60)
            place.postgres.start()
            before = len(callers.accepted)
            wait_until(lambda: len(callers.accepted) >= before + 10, 60)
        assert set(callers.received) <= {202, 503}, callers.received
        assert len(workers.living()) == 2, "no worker ends because SQL is away"
        ids = [*running, *callers.accepted]
        wait_for_the_end(place, ids, 120)
        assert_consistent(place, ids)
        assert charged(place, ids) == 0
    again = sum(one.outcome != "succeeded" for one in attempts(place, ids))
    print(f"PostgreSQL away for {seconds:g} s: {dict(callers.received)}, {again} deliveries ran again")


@pytest.mark.long
@pytest.mark.postgres
@pytest.mark.timeout(600)
def test_postgresql_away_for_fifteen_seconds_while_jobs_run(tmp_path: Path) -> None:
    with failure_instance(SEPARATE, tmp_path) as place:
        postgres_away(place, 15.0, jobs=500)


@pytest.mark.postgres
@pytest.mark.timeout(240)
def test_postgresql_away_while_jobs_run(separate: Place) -> None:
    postgres_away(separate, 3.0, jobs=120)


# Redis emptied


@pytest.mark.long
@pytest.mark.timeout(300)
def test_redis_emptied_with_jobs_in_every_state_embedded(tmp_path: Path) -> None:
    with failure_instance(EMBEDDED, tmp_path) as place:
        emptied(place)


@pytest.mark.postgres
@pytest.mark.timeout(240)
def test_redis_emptied_with_jobs_in_every_state(separate: Place) -> None:
    emptied(separate)


def emptied(place: Place) -> None:
    """Waiting for a turn, for a time, for others, for a limit, for another try; running, dead, completed."""
    with fleet(place.instance) as workers, place.instance.client() as client:
        workers.start("io", "--concurrency", "10")
        key = {"Idempotency-Key": "once-and-for-all"}
        body = {"type": "t.echo", "queue": "batch", "project": "acme"}
        first = client.post("/api/v1/jobs", json=body, headers=key).json()["id"]
        dead = submit(place, 2, "t.fail", payload={"category": "validation"})
        wait_until(lambda: counts(place, [first, *dead]) == {"completed": 1, "dead": 2}, 60)
        assert client.post("/api/v1/queues/parked/pause", json={"reason": "test"}).status_code == 200
        parked = submit(place, 20, queue="parked", payload={"seconds": 0.0})
        retrying = submit(place, 5, "t.until", queue="patient", payload={"name": "go"})
        limited = submit(place, 6, user="slow", payload={"seconds": 0.0})
        scheduled = submit(place, 5, delay=8, payload={"seconds": 0.0})
        running = submit(place, 25, payload={"seconds": 3.0}, max_attempts=1)
        dependent = submit(place, 3, after=[running[-1]], payload={"seconds": 0.0})
        ids = [first, *dead, *parked, *retrying, *limited, *scheduled, *running, *dependent]
        states = {"completed", "dead", "pending", "executing", "rate_limited", "retrying"}
        wait_until(lambda: states <= counts(place, ids).keys(), 60, lambda: str(counts(place, ids)))
        place.instance.flushall()
        at = time.monotonic()
        assert client.post("/api/v1/queues/parked/resume", json={"reason": "test"}).status_code == 200
        (place.scratch / "go").touch()
        wait_for_the_end(place, ids, 60)
        print(f"emptied: all {len(ids)} had ended {time.monotonic() - at:.1f} s later")
        assert_consistent(place, ids, dead=2)
        again = client.post("/api/v1/jobs", json=body, headers=key)
        assert (again.status_code, again.json()["id"]) == (200, first)
        assert client.post("/api/v1/jobs", json={**body, "priority": "high"}, headers=key).status_code == 409
        letters = {row["job"]: row["id"] for row in client.get("/api/v1/dead-letters").json()["results"]}
        assert set(dead) <= letters.keys()
        assert client.post(f"/api/v1/dead-letters/{letters[dead[0]]}/replay", json={}).status_code == 200
        wait_until(lambda: client.get(f"/api/v1/jobs/{dead[0]}").json()["replays"] == 1, 30)
        wait_for_the_end(place, dead, 30)
