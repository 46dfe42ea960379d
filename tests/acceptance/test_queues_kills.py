"""Processes that are killed, stopped and asked to go: nothing lost, nothing doubled, nothing kept.

The normal tier has each failure once and small, on one embedded instance; the long one at full size in both shapes.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from controlplane import parent_death
from tests.acceptance.failure_instance import failure_instance, submit
from tests.acceptance.fleet import Fleet, fleet
from tests.acceptance.invariants import (
    assert_consistent,
    attempts,
    charged,
    counts,
    seconds,
    slowest_orphan,
    statuses,
    wait_for_the_end,
)
from tests.support.instance import BASE_DIR, wait_until
from tests.support.shapes import BOTH, EMBEDDED, Place

ORPHAN_SECONDS = 30.0


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with failure_instance(EMBEDDED, tmp_path_factory.mktemp("scratch")) as made:
        yield made


def pause(least: float, most: float, draw: random.Random) -> None:
    """Let the instance work for a random while: the moment of the next blow is the point, nothing is waited for."""
    time.sleep(draw.uniform(least, most))


# Killed at random


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("shape", BOTH)
def test_twenty_kills_at_random_among_two_hundred_jobs(shape: str, tmp_path: Path) -> None:
    with failure_instance(shape, tmp_path) as place:
        _random_kills(place, jobs=200, kills=20)


@pytest.mark.timeout(240)
def test_kills_at_random(place: Place) -> None:
    _random_kills(place, jobs=40, kills=3)


def _random_kills(place: Place, jobs: int, kills: int) -> None:
    """Each time another worker takes the place of the dead."""
    draw = random.Random(20)
    with fleet(place.instance) as workers:
        for _ in range(2):
            workers.start("io", "--concurrency", "10")
        ids = submit(place, jobs, project="narrow", payload={"seconds": 1.0}, max_attempts=1)
        wait_until(lambda: counts(place, ids)["executing"] >= 5, 60)
        for _ in range(kills):
            pause(0.4, 2.0, draw)
            workers.kill(draw.choice(workers.living("io")))
            workers.start("io", "--concurrency", "10")
        wait_for_the_end(place, ids, 240)
        assert_consistent(place, ids)
        lost = sum(one.outcome == "lost" for one in attempts(place, ids))
        slowest = slowest_orphan(place, ids, workers.killed)
    print(f"{kills} kills among {jobs} jobs: {lost} deliveries lost, the slowest ran again after {slowest:.1f} s")
    assert lost > 0
    assert charged(place, ids) == 0
    assert slowest < ORPHAN_SECONDS


# Killed between dequeue and start


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("shape", BOTH)
def test_five_hundred_kills_between_dequeue_and_start(shape: str, tmp_path: Path) -> None:
    with failure_instance(shape, tmp_path) as place:
        _die_between(place, kills=500, jobs=700, where="taken")


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("shape", BOTH)
def test_kills_between_claim_and_start(shape: str, tmp_path: Path) -> None:
    """The claim is committed and nothing begun; such jobs run alone next time."""
    with failure_instance(shape, tmp_path) as place:
        _die_between(place, kills=5, jobs=100, where="claimed")


@pytest.mark.timeout(240)
def test_kills_between_dequeue_and_start(place: Place) -> None:
    _die_between(place, kills=6, jobs=60, where="taken")


def _die_between(place: Place, kills: int, jobs: int, where: str) -> None:
    """A process forks workers that kill themselves with a parcel in hand, until `kills` are dead."""
    ids = submit(place, jobs, payload={"seconds": 0.0}, max_attempts=1)
    dying = subprocess.Popen(
        [sys.executable, "-m", "tests.acceptance.dying_worker", "io", where, str(kills)],
        cwd=BASE_DIR, env=place.instance.environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        preexec_fn=parent_death.in_child(),
    )  # fmt: skip
    said, _ = dying.communicate(timeout=1500)
    deaths = [line.split() for line in said.splitlines() if line.startswith("dead ")]
    assert (dying.returncode, len(deaths)) == (0, kills), said[-2000:]
    with fleet(place.instance) as workers:
        workers.start("io")
        wait_for_the_end(place, ids, 240)
        assert_consistent(place, ids)
    uids = {str(pk): uid for pk, uid in place.rows("SELECT id, uid FROM queues_job")}
    last = {uids[pk]: float(at) for _, at, *parcel in deaths for pk in parcel}
    starts = {one.job: one.started_at for one in attempts(place, ids) if one.outcome == "succeeded"}
    slowest = max(starts[uid] - at for uid, at in last.items())
    print(f"{kills} kills, {where}: {len(last)} jobs in hand, the slowest ran {slowest:.1f} s after its last death")
    assert charged(place, ids) == 0
    assert slowest < ORPHAN_SECONDS


# Stopped, and asked to stop


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("shape", BOTH)
def test_a_worker_stopped_past_its_lease_settles_nothing_when_it_goes_on(shape: str, tmp_path: Path) -> None:
    with failure_instance(shape, tmp_path) as place, fleet(place.instance) as workers:
        one = workers.start("io", "--concurrency", "10")
        ids = submit(place, 60, payload={"seconds": 1.0}, max_attempts=1)
        wait_until(lambda: counts(place, ids)["executing"] >= 10, 60)
        workers.signal(one, signal.SIGSTOP)
        workers.start("io", "--concurrency", "10")
        stopped_at = time.time()

        def lost() -> int:
            return sum(each.outcome == "lost" and each.worker == one for each in attempts(place, ids))

        wait_until(lambda: lost() >= 10, 60)
        assert time.time() - stopped_at < ORPHAN_SECONDS
        wait_for_the_end(place, ids, 120)
        before = attempts(place, ids)
        workers.signal(one, signal.SIGCONT)
        # It wakes up with its results in hand, reports itself again, and finds that none of them is its own.
        woken = time.time()
        seen = "SELECT seen_at FROM queues_workerprocess WHERE name = ?"
        wait_until(lambda: seconds(place.rows(seen, one)[0][0]) > woken, 60)
        more = submit(place, 20, payload={"seconds": 0.0})
        wait_for_the_end(place, more, 60)
        assert attempts(place, ids) == before
        assert_consistent(place, [*ids, *more])
        print(f"stopped past its lease ({shape}): {lost()} deliveries ran elsewhere, none settled twice")


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("shape", BOTH)
def test_ten_times_sigterm_under_load(shape: str, tmp_path: Path) -> None:
    with failure_instance(shape, tmp_path) as place:
        _sigterm(place, jobs=400, times=10, grace="0.5")


@pytest.mark.timeout(240)
def test_sigterm_under_load(place: Place) -> None:
    _sigterm(place, jobs=80, times=2, grace="0.2")


def _sigterm(place: Place, jobs: int, times: int, grace: str) -> None:
    draw = random.Random(10)
    with fleet(place.instance, SLUICE_GRACE=grace) as workers:
        for _ in range(2):
            workers.start("io", "--concurrency", "10")
        ids = submit(place, jobs, payload={"seconds": 1.0}, max_attempts=1)
        wait_until(lambda: counts(place, ids)["executing"] >= 10, 60)
        asked: list[str] = []
        for _ in range(times):
            pause(0.3, 1.5, draw)
            known = {name for (name,) in place.rows("SELECT name FROM queues_workerprocess")}
            name = draw.choice([one for one in workers.living("io") if one in known and one not in asked])
            workers.signal(name, signal.SIGTERM)
            asked.append(name)
            workers.start("io", "--concurrency", "10")
        wait_for_the_end(place, ids, 240)
        wait_until(lambda: not set(asked) & set(workers.living()), 60)
        assert {workers.processes[name].returncode for name in asked} == {0}
        assert_consistent(place, ids)
    handed_back = sum(one.error.startswith("Its worker stopped") for one in attempts(place, ids))
    print(f"{times} SIGTERMs among {jobs} jobs: {handed_back} handed back")
    assert handed_back > 0, "some were in hand when it was asked to stop"
    assert charged(place, ids) == 0


# The web process


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("shape", BOTH)
def test_the_web_process_killed_ten_times_between_commit_and_kick(shape: str, tmp_path: Path) -> None:
    """The supervisor gives a child up that dies five times in a minute: so there is a minute's rest in between."""
    with failure_instance(shape, tmp_path) as place:
        _kill_web(place, 4)
        time.sleep(60)
        _kill_web(place, 4)


@pytest.mark.timeout(240)
def test_the_web_process_killed_between_commit_and_kick(place: Place) -> None:
    _kill_web(place, 2)


def _kill_web(place: Place, times: int) -> None:
    ids = []
    with fleet(place.instance) as workers:
        workers.start("io")
        for _ in range(times):
            key = {"Idempotency-Key": f"{time.time_ns()}"}
            body = {"type": "t.mark", "queue": "batch", "project": "acme", "payload": {"name": key["Idempotency-Key"]}}
            (place.scratch / "die-before-the-kick").touch()
            with place.instance.client() as client, pytest.raises(httpx.TransportError):
                client.post("/api/v1/jobs", json=body, headers=key)
            wait_until(lambda: _answers(place), 60)
            with place.instance.client() as client:
                again = client.post("/api/v1/jobs", json=body, headers=key)
            assert again.status_code == 200, "it was accepted, although the client got no response"
            ids.append(again.json()["id"])
            wait_for_the_end(place, ids, 60)
            assert len((place.scratch / key["Idempotency-Key"]).read_text().splitlines()) == 1
        assert_consistent(place, ids)


def _answers(place: Place) -> bool:
    try:
        return place.instance.readyz().status_code == 200
    except httpx.TransportError:
        return False


# Poison


@pytest.mark.timeout(300)
def test_poison_dies_alone_and_its_neighbours_are_charged_nothing(place: Place) -> None:
    """By exit, by a segmentation fault, by memory: each takes a worker with 100 neighbours down, then only itself."""
    for poison in ("t.exit", "t.segfault", "t.hungry"):
        with fleet(place.instance, SLUICE_GRACE="0.5") as workers:
            workers.start("io", "--concurrency", "110")
            healthy = submit(place, 50, payload={"seconds": 0.5}, max_attempts=1)
            (bad,) = submit(place, 1, poison, max_attempts=5)
            healthy += submit(place, 50, payload={"seconds": 0.5}, max_attempts=1)

            def over(workers: Fleet = workers, ids: list[str] = [*healthy, bad]) -> bool:  # noqa: B006
                if not workers.living("io"):
                    workers.start("io", "--concurrency", "110")
                return set(statuses(place, ids).values()) <= {"completed", "dead"}

            wait_until(over, 120, lambda: str(counts(place, [*healthy, bad])))  # noqa: B023
            assert_consistent(place, [*healthy, bad], dead=1)
        ((category, deliveries, counted, deaths),) = place.rows(
            "SELECT category, delivery, attempts_counted, deaths FROM queues_job WHERE uid = ?", bad
        )
        print(f"{poison}: dead after {deliveries} deliveries, {deaths} of them alone")
        assert (category, counted) == ("poison", 0)
        assert deliveries <= 3
        assert charged(place, healthy) == 0
