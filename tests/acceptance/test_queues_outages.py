"""Redis emptied, Redis away and hung, PostgreSQL away: what was accepted is done all the same, once."""

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

from tests.acceptance.fleet import fleet
from tests.acceptance.instance import wait_until
from tests.acceptance.shapes import BOTH, EMBEDDED, SEPARATE, Place
from tests.acceptance.sound import assert_sound, counts, wait_for_the_end
from tests.acceptance.test_queues_kills import submit, yard

CONFIG = """
version: 1
retry_policies: [{name: steady, strategy: fixed, initial: 2s, max: 2s, max_attempts: 1000, jitter: 0}]
queues:
  - {name: patient, retry_policy: steady}
  - {name: parked}
policies: [{name: slow, scope: user, unit: requests, algorithm: token_bucket, limit: 5, window: 10s, burst: 1}]
"""


class Callers:
    """Clients that submit without a break, each job under a key of its own. `heard` counts what they were told."""

    def __init__(self, place: Place, threads: int = 3) -> None:
        self.place = place
        self.heard: Counter[int] = Counter()
        self.accepted: list[str] = []
        self.slowest = 0.0
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._go_on, args=(number,)) for number in range(threads)]

    def _go_on(self, thread: int) -> None:
        with self.place.instance.client() as client:
            number = 0
            while not self._stop.is_set():
                number += 1
                body = {"type": "t.echo", "queue": "batch", "project": "acme", "payload": {"text": "x"}}
                begun = time.monotonic()
                answer = client.post("/api/v1/jobs", json=body, headers={"Idempotency-Key": f"{thread}-{number}"})
                with self._lock:
                    self.slowest = max(self.slowest, time.monotonic() - begun)
                    self.heard[answer.status_code] += 1
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


def redis_away(shape: str, scratch: Path, seconds: float) -> None:
    with yard(shape, scratch) as place, fleet(place.instance) as workers:
        workers.start("io", "--concurrency", "10")
        running = submit(place, 15, payload={"seconds": 2.0}, max_attempts=1)
        wait_until(lambda: counts(place).get("executing", 0) >= 10, 60)
        with Callers(place) as callers:
            wait_until(lambda: callers.heard[202] >= 10, 30)
            with outage(place, seconds):
                pass
            wait_until(lambda: len(callers.accepted) >= 30, 30)
        assert set(callers.heard) <= {202, 503}, callers.heard
        wait_for_the_end(place, 90)
        assert_sound(place, [*running, *callers.accepted])
        print(f"Redis away for {seconds:g} s ({shape}): {dict(callers.heard)}, slowest answer {callers.slowest:.2f} s")


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("shape", BOTH)
def test_redis_away_for_twenty_seconds_while_jobs_are_submitted(shape: str, tmp_path: Path) -> None:
    redis_away(shape, tmp_path, 20.0)


@pytest.mark.timeout(240)
def test_redis_hung_while_jobs_are_submitted(tmp_path: Path) -> None:
    """The same, smaller."""
    redis_away(EMBEDDED, tmp_path, 4.0)


def postgres_away(scratch: Path, seconds: float, jobs: int) -> None:
    with yard(SEPARATE, scratch) as place, fleet(place.instance) as workers:
        for _ in range(2):
            workers.start("io", "--concurrency", "10")
        running = submit(place, jobs, payload={"seconds": 1.0}, max_attempts=1)
        wait_until(lambda: counts(place).get("executing", 0) >= 15, 60)
        assert place.postgres is not None
        with Callers(place) as callers:
            wait_until(lambda: callers.heard[202] >= 10, 30)
            place.postgres.stop()
            gone = time.monotonic()
            wait_until(lambda: callers.heard[503] >= 3 and time.monotonic() - gone >= seconds, seconds + 60)
            place.postgres.start()
            before = len(callers.accepted)
            wait_until(lambda: len(callers.accepted) >= before + 10, 60)
        assert set(callers.heard) <= {202, 503}, callers.heard
        assert len(workers.living()) == 2, "no worker ends because SQL is away"
        wait_for_the_end(place, 120)
        assert_sound(place, [*running, *callers.accepted])
        ((charged,),) = place.rows("SELECT count(*) FROM queues_attempt WHERE counted AND outcome <> 'succeeded'")
        assert charged == 0
        ((again,),) = place.rows("SELECT count(*) FROM queues_attempt WHERE outcome <> 'succeeded'")
        print(f"PostgreSQL away for {seconds:g} s: {dict(callers.heard)}, {again} deliveries ran again")


@pytest.mark.long
@pytest.mark.postgres
@pytest.mark.timeout(600)
def test_postgresql_away_for_fifteen_seconds_while_jobs_run(tmp_path: Path) -> None:
    postgres_away(tmp_path, 15.0, jobs=500)


@pytest.mark.postgres
@pytest.mark.timeout(240)
def test_postgresql_away_while_jobs_run(tmp_path: Path) -> None:
    """The same, smaller."""
    postgres_away(tmp_path, 3.0, jobs=120)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("shape", BOTH)
def test_redis_emptied_with_jobs_in_every_state(shape: str, tmp_path: Path) -> None:
    """Waiting for a turn, for a time, for others, for a limit, for another try; released, running, dead, completed."""
    with yard(shape, tmp_path) as place, fleet(place.instance) as workers, place.instance.client() as client:
        place.instance.manage("apply", "-", stdin=CONFIG)
        workers.start("io", "--concurrency", "10")
        key = {"Idempotency-Key": "once-and-for-all"}
        body = {"type": "t.echo", "queue": "batch", "project": "acme"}
        first = client.post("/api/v1/jobs", json=body, headers=key)
        dead = submit(place, 2, "t.fail", payload={"category": "validation"})
        wait_until(lambda: counts(place) == {"completed": 1, "dead": 2}, 60)
        assert client.post("/api/v1/queues/parked/pause", json={"reason": "test"}).status_code == 200
        waiting = submit(place, 20, queue="parked", payload={"seconds": 0.0})
        retrying = submit(place, 5, "t.until", queue="patient", payload={"name": "go"})
        limited = submit(place, 6, user="slow", payload={"seconds": 0.0})
        scheduled = submit(place, 5, delay=8, payload={"seconds": 0.0})
        running = submit(place, 25, payload={"seconds": 3.0}, max_attempts=1)
        held = submit(place, 3, after=[running[-1]], payload={"seconds": 0.0})
        states = {"completed", "dead", "pending", "executing", "rate_limited", "retrying"}
        wait_until(lambda: states <= counts(place).keys(), 60, lambda: str(counts(place)))
        place.instance.flushall()
        emptied = time.monotonic()
        assert client.post("/api/v1/queues/parked/resume", json={"reason": "test"}).status_code == 200
        (tmp_path / "go").touch()
        wait_for_the_end(place, 60)
        print(f"emptied ({shape}): all had ended {time.monotonic() - emptied:.1f} s later")
        ids = [first.json()["id"], *dead, *waiting, *retrying, *limited, *scheduled, *running, *held]
        assert_sound(place, ids, dead=2)
        again = client.post("/api/v1/jobs", json=body, headers=key)
        assert (again.status_code, again.json()["id"]) == (200, first.json()["id"])
        other = client.post("/api/v1/jobs", json={**body, "priority": "high"}, headers=key)
        assert other.status_code == 409
        letters = client.get("/api/v1/dead-letters").json()["results"]
        assert {letter["job"] for letter in letters} == set(dead)
        assert client.post(f"/api/v1/dead-letters/{letters[0]['id']}/replay", json={}).status_code == 200
        wait_until(lambda: len(client.get("/api/v1/dead-letters").json()["results"]) == 2, 30)
