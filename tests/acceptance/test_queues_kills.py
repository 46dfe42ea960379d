"""Processes that are killed, stopped and asked to go, in both shapes: nothing lost, nothing doubled, nothing kept."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from controlplane import parent_death
from tests.acceptance.fleet import Fleet, fleet
from tests.acceptance.instance import BASE_DIR, wait_until
from tests.acceptance.shapes import BOTH, EMBEDDED, Place, placed
from tests.acceptance.sound import assert_sound, counts, seconds, slowest_orphan, wait_for_the_end

CONFIG = """
version: 1
projects: [{{slug: acme}}]
policies: [{{name: inflight, scope: project, unit: requests, algorithm: concurrency, limit: {inflight}, lease_ttl: 60s}}]
"""
ORPHAN_SECONDS = 30.0


@contextmanager
def yard(shape: str, scratch: Path, *options: str, inflight: int = 150, **environ: str) -> Iterator[Place]:
    """An instance with the tests' tasks and no I/O worker of its own."""
    given = {"SLUICE_TASK_MODULES": "tests.acceptance.tasks", "ACCEPTANCE_SCRATCH": str(scratch), **environ}
    with placed(shape, *(options or ("--workers", "0")), environ=given) as place:
        place.instance.manage("apply", "-", stdin=CONFIG.format(inflight=inflight))
        yield place


def submit(place: Place, count: int, type: str = "t.sleep", **fields: Any) -> list[str]:
    """Jobs of one kind; their ids."""
    body = {"jobs": [{"type": type, "queue": "batch", "project": "acme", **fields} for _ in range(count)]}
    with place.instance.client() as client:
        answer = client.post("/api/v1/jobs/bulk", json=body)
    assert answer.status_code == 202, answer.text
    ids: list[str] = answer.json()["ids"]
    return ids


def pause(least: float, most: float, draw: random.Random) -> None:
    """Let the instance work for a random while: the moment of the next blow is the point, nothing is waited for."""
    time.sleep(draw.uniform(least, most))


def kill_at_random(place: Place, workers: Fleet, kills: int, draw: random.Random) -> None:
    """Each time another one takes the place of the dead."""
    for _ in range(kills):
        pause(0.4, 2.0, draw)
        workers.kill(draw.choice(workers.living("io")))
        workers.start("io", "--concurrency", "10")


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("shape", BOTH)
def test_twenty_kills_at_random_among_two_hundred_jobs(shape: str, tmp_path: Path) -> None:
    with yard(shape, tmp_path, inflight=8) as place, fleet(place.instance) as workers:
        _random_kills(place, workers, jobs=200, kills=20, each=1.0)


@pytest.mark.timeout(240)
def test_kills_at_random(tmp_path: Path) -> None:
    """The same, smaller."""
    with yard(EMBEDDED, tmp_path, inflight=8) as place, fleet(place.instance) as workers:
        _random_kills(place, workers, jobs=40, kills=3, each=1.0)


def _random_kills(place: Place, workers: Fleet, jobs: int, kills: int, each: float) -> None:
    draw = random.Random(20)
    for _ in range(2):
        workers.start("io", "--concurrency", "10")
    ids = submit(place, jobs, payload={"seconds": each}, max_attempts=1)
    wait_until(lambda: counts(place).get("executing", 0) >= 5, 60)
    kill_at_random(place, workers, kills, draw)
    wait_for_the_end(place, 240)
    assert_sound(place, ids)
    assert place.rows("SELECT count(*) FROM queues_attempt WHERE outcome = 'lost'")[0][0] > 0
    assert place.rows("SELECT count(*) FROM queues_attempt WHERE counted AND outcome <> 'succeeded'")[0][0] == 0
    slowest = slowest_orphan(place, workers.killed)
    print(f"{kills} kills among {jobs} jobs: the slowest orphan started again after {slowest:.1f} s")
    assert slowest < ORPHAN_SECONDS


# Between dequeue and start


def _die_between(place: Place, kills: int, jobs: int, where: str, lane: str = "io") -> None:
    """A process that forks workers which kill themselves with a parcel in hand, until `kills` are dead."""
    ids = submit(place, jobs, payload={"seconds": 0.0}, max_attempts=1)
    dying = subprocess.Popen(
        [sys.executable, "-m", "tests.acceptance.dying_worker", lane, where, str(kills)],
        cwd=BASE_DIR, env=place.instance.environ, stdout=subprocess.PIPE, text=True,
        preexec_fn=parent_death.in_child(),
    )  # fmt: skip
    said, _ = dying.communicate(timeout=1500)
    deaths = [line.split() for line in said.splitlines() if line.startswith("dead ")]
    assert (dying.returncode, len(deaths)) == (0, kills), said[-2000:]
    with fleet(place.instance) as workers:
        workers.start("io")
        wait_for_the_end(place, 240)
    assert_sound(place, ids)
    ended_well = "SELECT job_id, started_at FROM queues_attempt WHERE outcome = 'succeeded'"
    starts = {pk: seconds(at) for pk, at in place.rows(ended_well)}
    last = {int(pk): float(at) for _, at, *parcel in deaths for pk in parcel}
    waited = [starts[pk] - at for pk, at in last.items() if pk in starts]
    print(
        f"{kills} kills {where} on {lane}: {len(waited)} jobs, the last start after the last death {max(waited):.1f} s"
    )


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("shape", BOTH)
def test_five_hundred_kills_between_dequeue_and_start(shape: str, tmp_path: Path) -> None:
    with yard(shape, tmp_path) as place:
        _die_between(place, kills=500, jobs=700, where="taken")


@pytest.mark.timeout(240)
@pytest.mark.parametrize(("where", "kills"), [("taken", 6), ("claimed", 3)])
def test_kills_between_dequeue_and_start(where: str, kills: int, tmp_path: Path) -> None:
    """The same, smaller; and with the claim committed and nothing begun, after which jobs run alone."""
    with yard(EMBEDDED, tmp_path) as place:
        _die_between(place, kills=kills, jobs=60, where=where)
        assert counts(place) == {"completed": 60}


# Stopped, and asked to stop


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("shape", BOTH)
def test_a_worker_stopped_past_its_lease_settles_nothing_when_it_goes_on(shape: str, tmp_path: Path) -> None:
    with yard(shape, tmp_path) as place, fleet(place.instance) as workers:
        one = workers.start("io", "--concurrency", "10")
        ids = submit(place, 60, payload={"seconds": 1.0}, max_attempts=1)
        wait_until(lambda: counts(place).get("executing", 0) == 10, 60)
        workers.signal(one, signal.SIGSTOP)
        workers.start("io", "--concurrency", "10")
        stopped_at = time.time()
        in_hand = "SELECT count(*) FROM queues_attempt WHERE outcome = 'lost' AND worker = ?"
        wait_until(lambda: place.rows(in_hand, one)[0][0] >= 10, 60)
        assert time.time() - stopped_at < ORPHAN_SECONDS
        wait_for_the_end(place, 120)
        before = place.rows("SELECT count(*) FROM queues_attempt")
        workers.signal(one, signal.SIGCONT)
        # It wakes up with ten results in hand, reports itself again, and finds that none of them is its own.
        seen = "SELECT seen_at FROM queues_workerprocess WHERE name = ?"
        woken = time.time()
        wait_until(lambda: seconds(place.rows(seen, one)[0][0]) > woken, 60)
        more = submit(place, 20, payload={"seconds": 0.0})
        wait_for_the_end(place, 60)
        assert place.rows("SELECT count(*) FROM queues_attempt")[0][0] == before[0][0] + 20
        assert_sound(place, [*ids, *more])


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("shape", BOTH)
def test_ten_times_sigterm_under_load(shape: str, tmp_path: Path) -> None:
    with yard(shape, tmp_path) as place, fleet(place.instance, SLUICE_GRACE="0.5") as workers:
        _sigterm(place, workers, jobs=400, times=10)


@pytest.mark.timeout(240)
def test_sigterm_under_load(tmp_path: Path) -> None:
    """The same, smaller."""
    with yard(EMBEDDED, tmp_path) as place, fleet(place.instance, SLUICE_GRACE="0.2") as workers:
        _sigterm(place, workers, jobs=80, times=2)


def _sigterm(place: Place, workers: Fleet, jobs: int, times: int) -> None:
    draw = random.Random(10)
    for _ in range(2):
        workers.start("io", "--concurrency", "10")
    ids = submit(place, jobs, payload={"seconds": 1.0}, max_attempts=1)
    wait_until(lambda: counts(place).get("executing", 0) > 10, 60)
    asked = []
    for _ in range(times):
        pause(0.3, 1.5, draw)
        name = draw.choice([one for one in workers.living("io") if one not in asked])
        workers.signal(name, signal.SIGTERM)
        asked.append(name)
        workers.start("io", "--concurrency", "10")
    wait_for_the_end(place, 240)
    wait_until(lambda: not set(asked) & set(workers.living()), 60)
    assert {workers.processes[name].returncode for name in asked} == {0}
    assert_sound(place, ids)
    handed_back = place.rows(
        "SELECT count(*) FROM queues_attempt WHERE outcome = 'lost' AND error LIKE 'Its worker stopped%'"
    )
    assert handed_back[0][0] > 0, "some were in hand when it was asked to stop"
    assert place.rows("SELECT count(*) FROM queues_attempt WHERE counted AND outcome <> 'succeeded'")[0][0] == 0
    print(f"{times} SIGTERMs among {jobs} jobs: {handed_back[0][0]} handed back")


# The web process


@pytest.mark.timeout(240)
@pytest.mark.parametrize("shape", BOTH)
def test_the_web_process_killed_between_commit_and_kick(shape: str, tmp_path: Path) -> None:
    import httpx

    with yard(shape, tmp_path, "--workers", "1") as place:
        body = {"type": "t.mark", "queue": "batch", "project": "acme", "payload": {"name": "ran"}}
        kills = 3
        for number in range(kills):
            (tmp_path / "die-before-the-kick").touch()
            key = {"Idempotency-Key": f"k{number}"}
            with place.instance.client() as client, pytest.raises(httpx.TransportError):
                client.post("/api/v1/jobs", json=body, headers=key)
            wait_until(lambda n=number: counts(place).get("completed", 0) == n + 1, 60, lambda: str(counts(place)))
            wait_until(lambda: _answers(place), 60)
            with place.instance.client() as client:
                again = client.post("/api/v1/jobs", json=body, headers=key)
            assert again.status_code == 200, "it was accepted, though nobody heard of it"
        assert len((tmp_path / "ran").read_text().splitlines()) == kills
        assert_sound(place, [])


def _answers(place: Place) -> bool:
    import httpx

    try:
        return place.instance.readyz().status_code == 200
    except httpx.TransportError:
        return False


# Poison


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("poison", "payload"), [("t.exit", {}), ("t.segfault", {}), ("t.hungry", {"megabytes": 2000})])
def test_poison_dies_alone_and_its_neighbours_are_charged_nothing(poison: str, payload: Any, tmp_path: Path) -> None:
    with (
        yard(EMBEDDED, tmp_path, SLUICE_MAX_MEMORY="300") as place,
        fleet(place.instance, SLUICE_GRACE="0.5") as workers,
    ):
        workers.start("io", "--concurrency", "120")
        submit(place, 50, payload={"seconds": 0.5}, max_attempts=1)
        (bad,) = submit(place, 1, poison, payload=payload, max_attempts=5)
        submit(place, 50, payload={"seconds": 0.5}, max_attempts=1)
        wait_until(
            lambda: _replace_the_dead(workers) and counts(place).get("dead", 0) == 1, 120, lambda: str(counts(place))
        )
        wait_until(lambda: _replace_the_dead(workers) and counts(place).get("completed", 0) == 100, 120)
        wait_for_the_end(place, 60)
        assert_sound(place, [], dead=1)
        ((category, deliveries, counted, deaths),) = place.rows(
            "SELECT category, delivery, attempts_counted, deaths FROM queues_job WHERE uid = ?", bad
        )
        assert (category, counted) == ("poison", 0)
        assert deliveries <= 3
        assert place.rows("SELECT max(attempts_counted) FROM queues_job WHERE status = 'completed'") == [(0,)]
        print(f"{poison}: dead after {deliveries} deliveries, {deaths} of them alone")


def _replace_the_dead(workers: Fleet) -> bool:
    if not workers.living("io"):
        workers.start("io", "--concurrency", "120")
    return True
