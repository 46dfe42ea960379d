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

import pytest

from tests.acceptance.invariants import assert_all_ended_once, attempts, charged, counts, wait_for_the_end
from tests.acceptance.plans import FAULTS
from tests.acceptance.worker_fleet import worker_fleet
from tests.support.instance import wait_until
from tests.support.product import job_of
from tests.support.shapes import BOTH, EMBEDDED, SEPARATE, Deployment, deployed

PLAN = FAULTS


class Callers:
    """Clients that submit without a break, each job under a key of its own. `statuses` counts the responses."""

    def __init__(self, deployment: Deployment, threads: int = 3) -> None:
        self.deployment = deployment
        self.statuses: Counter[int] = Counter()
        self.accepted: list[str] = []
        self.slowest = 0.0
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._submit_on, args=(number,)) for number in range(threads)]

    def _submit_on(self, thread: int) -> None:
        product = self.deployment.product
        while not self._stop.is_set():
            begun = time.monotonic()
            key = {"Idempotency-Key": f"{thread}-{time.time_ns()}"}
            response = product.call("POST", "jobs", job_of(payload={"text": "x"}), headers=key)
            with self._lock:
                self.slowest = max(self.slowest, time.monotonic() - begun)
                self.statuses[response.status_code] += 1
                if response.status_code == 202:
                    self.accepted.append(response.json()["id"])
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
def outage(deployment: Deployment, seconds: float) -> Iterator[None]:
    """Redis is hung (embedded) or gone (separate) for that long; the block runs meanwhile."""
    begun = time.monotonic()
    if deployment.redis is None:
        (pid,) = deployment.instance.pids("valkey")
        os.kill(pid, signal.SIGSTOP)
        back: Callable[[], None] = lambda: os.kill(pid, signal.SIGCONT)  # noqa: E731
    else:
        deployment.redis.stop()
        back = deployment.redis.start_again
    try:
        yield
        time.sleep(max(begun + seconds - time.monotonic(), 0.0))  # the rest of the outage
    finally:
        back()


# Redis away


def redis_away(deployment: Deployment, seconds: float) -> None:
    with worker_fleet(deployment.instance) as workers:
        workers.start("io", "--concurrency", "10")
        running = deployment.product.submit_bulk(15, "t.sleep", payload={"seconds": 2.0}, max_attempts=1)
        wait_until(lambda: counts(deployment, running)["executing"] >= 10, 60)
        with Callers(deployment) as callers:
            wait_until(lambda: callers.statuses[202] >= 10, 30)
            with outage(deployment, seconds):
                pass
            before = len(callers.accepted)
            wait_until(lambda: len(callers.accepted) >= before + 10, 30)
        assert set(callers.statuses) <= {202, 503}, callers.statuses
        ids = [*running, *callers.accepted]
        wait_for_the_end(deployment, ids, 90)
        assert_all_ended_once(deployment, ids)
        assert charged(deployment, ids) == 0
    print(f"Redis away for {seconds:g} s: {dict(callers.statuses)}, slowest answer {callers.slowest:.2f} s")


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("shape", BOTH)
def test_redis_away_for_twenty_seconds_while_jobs_are_submitted(shape: str) -> None:
    with deployed(shape, PLAN) as deployment:
        redis_away(deployment, 20.0)


@pytest.mark.postgres
@pytest.mark.timeout(240)
def test_redis_away_while_jobs_are_submitted(separate: Deployment) -> None:
    redis_away(separate, 4.0)


# PostgreSQL away


def postgres_away(deployment: Deployment, seconds: float, jobs: int) -> None:
    assert deployment.postgres is not None
    with worker_fleet(deployment.instance) as workers:
        for _ in range(2):
            workers.start("io", "--concurrency", "10")
        running = deployment.product.submit_bulk(jobs, "t.sleep", payload={"seconds": 1.0}, max_attempts=1)
        wait_until(lambda: counts(deployment, running)["executing"] >= 15, 60)
        with Callers(deployment) as callers:
            wait_until(lambda: callers.statuses[202] >= 10, 30)
            deployment.postgres.stop()
            gone = time.monotonic()
            wait_until(lambda: callers.statuses[503] >= 3 and time.monotonic() - gone >= seconds, seconds + 60)
            deployment.postgres.start()
            before = len(callers.accepted)
            wait_until(lambda: len(callers.accepted) >= before + 10, 60)
        assert set(callers.statuses) <= {202, 503}, callers.statuses
        assert len(workers.living()) == 2, "no worker ends because SQL is unavailable"
        ids = [*running, *callers.accepted]
        wait_for_the_end(deployment, ids, 120)
        assert_all_ended_once(deployment, ids)
        assert charged(deployment, ids) == 0
    again = sum(one.outcome != "succeeded" for one in attempts(deployment, ids))
    print(f"PostgreSQL away for {seconds:g} s: {dict(callers.statuses)}, {again} deliveries ran again")


@pytest.mark.long
@pytest.mark.postgres
@pytest.mark.timeout(600)
def test_postgresql_away_for_fifteen_seconds_while_jobs_run() -> None:
    with deployed(SEPARATE, PLAN) as deployment:
        postgres_away(deployment, 15.0, jobs=500)


@pytest.mark.postgres
@pytest.mark.timeout(240)
def test_postgresql_away_while_jobs_run(separate: Deployment) -> None:
    postgres_away(separate, 3.0, jobs=120)


# Redis emptied


@pytest.mark.long
@pytest.mark.timeout(300)
def test_redis_emptied_with_jobs_in_every_state_embedded() -> None:
    with deployed(EMBEDDED, PLAN) as deployment:
        emptied(deployment)


@pytest.mark.postgres
@pytest.mark.timeout(240)
def test_redis_emptied_with_jobs_in_every_state(separate: Deployment) -> None:
    emptied(separate)


def emptied(deployment: Deployment) -> None:
    """Waiting for a turn, for a time, for others, for a limit, for another try; running, dead, completed."""
    product = deployment.product
    with worker_fleet(deployment.instance) as workers:
        workers.start("io", "--concurrency", "10")
        key = {"Idempotency-Key": "once-and-for-all"}
        first = product.post("jobs", job_of(), expected=202, headers=key)["id"]
        dead = product.submit_bulk(2, "t.fail", payload={"category": "validation"})
        wait_until(lambda: counts(deployment, [first, *dead]) == {"completed": 1, "dead": 2}, 60)
        product.pause("parked")
        parked = product.submit_bulk(20, "t.sleep", queue="parked", payload={"seconds": 0.0})
        retrying = product.submit_bulk(5, "t.until", queue="patient", payload={"name": "go"})
        limited = product.submit_bulk(6, "t.sleep", user="slow", payload={"seconds": 0.0})
        scheduled = product.submit_bulk(5, "t.sleep", delay=8, payload={"seconds": 0.0})
        running = product.submit_bulk(25, "t.sleep", payload={"seconds": 3.0}, max_attempts=1)
        dependent = product.submit_bulk(3, "t.sleep", after=[running[-1]], payload={"seconds": 0.0})
        ids = [first, *dead, *parked, *retrying, *limited, *scheduled, *running, *dependent]
        states = {"completed", "dead", "pending", "executing", "rate_limited", "retrying"}
        wait_until(lambda: states <= counts(deployment, ids).keys(), 60, lambda: str(counts(deployment, ids)))
        deployment.instance.flushall()
        at = time.monotonic()
        product.resume("parked")
        (deployment.scratch / "go").touch()
        wait_for_the_end(deployment, ids, 60)
        print(f"emptied: all {len(ids)} had ended {time.monotonic() - at:.1f} s later")
        assert_all_ended_once(deployment, ids, dead=2)
        assert product.post("jobs", job_of(), expected=200, headers=key)["id"] == first
        product.post("jobs", job_of(priority="high"), expected=409, headers=key)
        letters = {row["job"]: row["id"] for row in product.results("dead-letters")}
        assert set(dead) <= letters.keys()
        product.post(f"dead-letters/{letters[dead[0]]}/replay")
        wait_until(lambda: product.job(dead[0])["replays"] == 1, 30)
        wait_for_the_end(deployment, dead, 30)
