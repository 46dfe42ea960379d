"""Processes that are killed, stopped and terminated: no job is lost or runs twice, no slot stays in use.

The normal tier has each failure once and small, on one embedded instance; the long one at full size in both shapes.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time

import httpx
import pytest

from controlplane import parent_death
from tests.acceptance.invariants import (
    assert_all_ended_once,
    attempts,
    charged,
    counts,
    seconds,
    slowest_orphan,
    statuses,
    wait_for_the_end,
)
from tests.acceptance.plans import FAULTS
from tests.acceptance.worker_fleet import WorkerFleet, worker_fleet
from tests.support.instance import BASE_DIR, wait_until
from tests.support.product import job_of
from tests.support.shapes import BOTH, Deployment, deployed

PLAN = FAULTS
ORPHAN_SECONDS = 30.0


def pause(least: float, most: float, draw: random.Random) -> None:
    """Let the instance work for a random while: the moment of the next kill is what varies, nothing is waited for."""
    time.sleep(draw.uniform(least, most))


# None is killed


def test_no_job_waits_behind_a_long_one_while_a_worker_is_idle(embedded: Deployment) -> None:
    """RolnickLab/antenna#1323, saleor/saleor#16488, opendatacube/datacube-core#325: a worker keeps more jobs than it can
    run, and they wait for the end of its long ones."""
    product = embedded.product
    with worker_fleet(embedded.instance) as workers:
        for _ in range(2):
            workers.start("io", "--concurrency", "2")
        started = "SELECT count(*) FROM queues_workerprocess WHERE lane = 'io'"
        wait_until(lambda: embedded.rows(started) == [(2,)], 30)
        done = product.call(
            "POST",
            "jobs/bulk",
            {"jobs": [job_of("t.sleep", payload={"seconds": seconds}) for seconds in (60.0, 60.0, *[0.1] * 6)]},
        )
        ids = done.json()["ids"]
        wait_until(lambda: counts(embedded, ids)["completed"] == 6, 20, lambda: str(counts(embedded, ids)))
        for uid in ids[:2]:
            product.cancel(uid)
        wait_until(lambda: counts(embedded, ids)["cancelled"] == 2, 20)
        assert {one.outcome for one in attempts(embedded, ids[2:])} == {"succeeded"}, "none was claimed for no slot"


# Killed at random


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("shape", BOTH)
def test_twenty_kills_at_random_among_two_hundred_jobs(shape: str) -> None:
    with deployed(shape, PLAN) as deployment:
        _random_kills(deployment, jobs=200, kills=20)


@pytest.mark.timeout(240)
def test_kills_at_random(embedded: Deployment) -> None:
    _random_kills(embedded, jobs=40, kills=3)


def _random_kills(deployment: Deployment, jobs: int, kills: int) -> None:
    """Another worker replaces each that is killed."""
    draw = random.Random(20)
    with worker_fleet(deployment.instance) as workers:
        for _ in range(2):
            workers.start("io", "--concurrency", "10")
        ids = deployment.product.submit_bulk(
            jobs, "t.sleep", project="narrow", payload={"seconds": 1.0}, max_attempts=1
        )
        wait_until(lambda: counts(deployment, ids)["executing"] >= 5, 60)
        for _ in range(kills):
            pause(0.4, 2.0, draw)
            workers.kill(draw.choice(workers.living("io")))
            workers.start("io", "--concurrency", "10")
        wait_for_the_end(deployment, ids, 240)
        assert_all_ended_once(deployment, ids)
        lost = sum(one.outcome == "lost" for one in attempts(deployment, ids))
        slowest = slowest_orphan(deployment, ids, workers.killed)
    print(f"{kills} kills among {jobs} jobs: {lost} deliveries lost, the slowest ran again after {slowest:.1f} s")
    assert lost > 0
    assert charged(deployment, ids) == 0
    assert slowest < ORPHAN_SECONDS


# Killed between dequeue and start


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("shape", BOTH)
def test_five_hundred_kills_between_dequeue_and_start(shape: str) -> None:
    with deployed(shape, PLAN) as deployment:
        _die_between(deployment, kills=500, jobs=700, where="taken")


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("shape", BOTH)
def test_kills_between_claim_and_start(shape: str) -> None:
    """The claim is committed and nothing begun; such jobs run alone next time."""
    with deployed(shape, PLAN) as deployment:
        _die_between(deployment, kills=5, jobs=100, where="claimed")


@pytest.mark.timeout(240)
def test_kills_between_dequeue_and_start(embedded: Deployment) -> None:
    _die_between(embedded, kills=6, jobs=60, where="taken")


def _die_between(deployment: Deployment, kills: int, jobs: int, where: str) -> None:
    """A process forks workers that kill themselves with a parcel taken, until `kills` are dead."""
    ids = deployment.product.submit_bulk(jobs, "t.sleep", payload={"seconds": 0.0}, max_attempts=1)
    dying = subprocess.Popen(
        [sys.executable, "-m", "tests.acceptance.dying_worker", "io", where, str(kills)],
        cwd=BASE_DIR, env=deployment.instance.environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        preexec_fn=parent_death.in_child(),
    )  # fmt: skip
    printed, _ = dying.communicate(timeout=1500)
    deaths = [line.split() for line in printed.splitlines() if line.startswith("dead ")]
    assert (dying.returncode, len(deaths)) == (0, kills), printed[-2000:]
    with worker_fleet(deployment.instance) as workers:
        workers.start("io")
        wait_for_the_end(deployment, ids, 240)
        assert_all_ended_once(deployment, ids)
    uids = {str(pk): uid for pk, uid in deployment.rows("SELECT id, uid FROM queues_job")}
    last = {uids[pk]: float(at) for _, at, *parcel in deaths for pk in parcel}
    starts = {one.job: one.started_at for one in attempts(deployment, ids) if one.outcome == "succeeded"}
    slowest = max(starts[uid] - at for uid, at in last.items())
    print(f"{kills} kills, {where}: {len(last)} jobs taken, the slowest ran {slowest:.1f} s after its last death")
    assert charged(deployment, ids) == 0
    assert slowest < ORPHAN_SECONDS


# Frozen, and terminated


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("shape", BOTH)
def test_a_worker_stopped_past_its_lease_settles_nothing_when_it_goes_on(shape: str) -> None:
    with deployed(shape, PLAN) as deployment, worker_fleet(deployment.instance) as workers:
        one = workers.start("io", "--concurrency", "10")
        ids = deployment.product.submit_bulk(60, "t.sleep", payload={"seconds": 1.0}, max_attempts=1)
        wait_until(lambda: counts(deployment, ids)["executing"] >= 10, 60)
        workers.signal(one, signal.SIGSTOP)
        workers.start("io", "--concurrency", "10")
        stopped_at = time.time()

        def lost() -> int:
            return sum(each.outcome == "lost" and each.worker == one for each in attempts(deployment, ids))

        wait_until(lambda: lost() >= 10, 60)
        assert time.time() - stopped_at < ORPHAN_SECONDS
        wait_for_the_end(deployment, ids, 120)
        before = attempts(deployment, ids)
        workers.signal(one, signal.SIGCONT)
        # It continues with finished jobs, registers itself again, and finds that none of them is its own any more.
        woken = time.time()
        seen = "SELECT seen_at FROM queues_workerprocess WHERE name = ?"
        wait_until(lambda: seconds(deployment.rows(seen, one)[0][0]) > woken, 60)
        more = deployment.product.submit_bulk(20, "t.sleep", payload={"seconds": 0.0})
        wait_for_the_end(deployment, more, 60)
        assert attempts(deployment, ids) == before
        assert_all_ended_once(deployment, [*ids, *more])
        print(f"stopped past its lease ({shape}): {lost()} deliveries ran elsewhere, none settled twice")


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("shape", BOTH)
def test_ten_times_sigterm_under_load(shape: str) -> None:
    with deployed(shape, PLAN) as deployment:
        _sigterm(deployment, jobs=400, times=10, grace="0.5")


@pytest.mark.timeout(240)
def test_sigterm_under_load(embedded: Deployment) -> None:
    _sigterm(embedded, jobs=80, times=2, grace="0.2")


def _sigterm(deployment: Deployment, jobs: int, times: int, grace: str) -> None:
    draw = random.Random(10)
    with worker_fleet(deployment.instance, SLUICE_GRACE=grace) as workers:
        for _ in range(2):
            workers.start("io", "--concurrency", "10")
        ids = deployment.product.submit_bulk(jobs, "t.sleep", payload={"seconds": 1.0}, max_attempts=1)
        wait_until(lambda: counts(deployment, ids)["executing"] >= 10, 60)
        asked: list[str] = []

        def candidates() -> list[str]:
            known = {name for (name,) in deployment.rows("SELECT name FROM queues_workerprocess")}
            return [one for one in workers.living("io") if one in known and one not in asked]

        for _ in range(times):
            pause(0.3, 1.5, draw)
            wait_until(candidates, 60, "a worker that has registered itself")
            name = draw.choice(candidates())
            workers.signal(name, signal.SIGTERM)
            asked.append(name)
            workers.start("io", "--concurrency", "10")
        wait_for_the_end(deployment, ids, 240)
        wait_until(lambda: not set(asked) & set(workers.living()), 60)
        assert {workers.processes[name].returncode for name in asked} == {0}
        assert_all_ended_once(deployment, ids)
    handed_back = sum(one.error.startswith("Its worker stopped") for one in attempts(deployment, ids))
    print(f"{times} SIGTERMs among {jobs} jobs: {handed_back} handed back")
    assert handed_back > 0, "it had unfinished jobs when it had to stop"
    assert charged(deployment, ids) == 0


# The web process


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("shape", BOTH)
def test_the_web_process_killed_ten_times_between_commit_and_kick(shape: str) -> None:
    """The supervisor gives up on a child that dies five times in a minute: so there is a minute between the halves."""
    with deployed(shape, PLAN) as deployment:
        _kill_web(deployment, 4)
        time.sleep(60)
        _kill_web(deployment, 4)


@pytest.mark.timeout(240)
def test_the_web_process_killed_between_commit_and_kick(embedded: Deployment) -> None:
    _kill_web(embedded, 2)


def _kill_web(deployment: Deployment, times: int) -> None:
    ids = []
    with worker_fleet(deployment.instance) as workers:
        workers.start("io")
        for _ in range(times):
            name = f"{time.time_ns()}"
            job, key = job_of("t.mark", payload={"name": name}), {"Idempotency-Key": name}
            (deployment.scratch / "die-before-the-kick").touch()
            with pytest.raises(httpx.TransportError):
                deployment.product.post("jobs", job, headers=key)
            wait_until(deployment.instance.is_serving, 60)
            ids.append(deployment.product.post("jobs", job, expected=200, headers=key)["id"])  # accepted the first time
            wait_for_the_end(deployment, ids, 60)
            assert len((deployment.scratch / name).read_text().splitlines()) == 1
        assert_all_ended_once(deployment, ids)


# Poison


@pytest.mark.timeout(300)
def test_poison_dies_alone_and_its_neighbours_are_charged_nothing(embedded: Deployment) -> None:
    """By exit, by a segmentation fault, by memory: each takes a worker with 100 neighbours down, then only itself."""
    for poison in ("t.exit", "t.segfault", "t.hungry"):
        with worker_fleet(embedded.instance, SLUICE_GRACE="0.5") as workers:
            workers.start("io", "--concurrency", "110")
            healthy = embedded.product.submit_bulk(50, "t.sleep", payload={"seconds": 0.5}, max_attempts=1)
            bad = embedded.product.submit(poison, max_attempts=5)
            healthy += embedded.product.submit_bulk(50, "t.sleep", payload={"seconds": 0.5}, max_attempts=1)

            def over(workers: WorkerFleet = workers, ids: list[str] = [*healthy, bad]) -> bool:  # noqa: B006
                if not workers.living("io"):
                    workers.start("io", "--concurrency", "110")
                return set(statuses(embedded, ids).values()) <= {"completed", "dead"}

            wait_until(over, 120, lambda: str(counts(embedded, [*healthy, bad])))  # noqa: B023
            assert_all_ended_once(embedded, [*healthy, bad], dead=1)
        ((category, deliveries, counted, deaths),) = embedded.rows(
            "SELECT category, delivery, attempts_counted, deaths FROM queues_job WHERE uid = ?", bad
        )
        print(f"{poison}: dead after {deliveries} deliveries, {deaths} of them alone")
        assert (category, counted) == ("poison", 0)
        assert deliveries <= 3
        assert charged(embedded, healthy) == 0
