"""Tasks that end, outlive or upset the process that they run in, on both lanes of a real instance."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.failure_instance import failure_instance, submit
from tests.acceptance.fleet import fleet
from tests.support.instance import process_table, wait_until
from tests.support.shapes import EMBEDDED, SEPARATE, Place

LANES = ["threaded", "forked"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One instance with a worker of each lane."""
    with failure_instance(
        EMBEDDED, tmp_path_factory.mktemp("scratch"), "--workers", "1", SLUICE_STUCK_AFTER="5"
    ) as made:
        yield made


def job_of(place: Place, uid: str) -> dict[str, Any]:
    with place.instance.client() as client:
        found: dict[str, Any] = client.get(f"/api/v1/jobs/{uid}").json()
    return found


def ended(place: Place, uid: str, status: str, within: float = 60.0) -> dict[str, Any]:
    """The job once it has this status."""
    wait_until(lambda: job_of(place, uid)["status"] == status, within, lambda: str(job_of(place, uid)))
    return job_of(place, uid)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("queue", LANES)
def test_a_process_that_leaves_quietly_has_died(place: Place, queue: str) -> None:
    (uid,) = submit(place, 1, "t.leave-quietly", queue=queue)
    job = ended(place, uid, "dead", 120)
    assert job["category"] == "poison"
    assert len(job["attempts"]) == (3 if queue == "threaded" else 2), "three deliveries in all"
    assert "exit code 0" in job["error"]


@pytest.mark.parametrize("queue", LANES)
def test_a_process_that_a_job_has_started_can_be_terminated(place: Place, queue: str) -> None:
    (uid,) = submit(place, 1, "t.terminate", queue=queue)
    assert ended(place, uid, "completed")["result"] == -signal.SIGTERM


@pytest.mark.parametrize("queue", LANES)
def test_a_copy_of_the_worker_that_a_job_has_forked_does_not_go_on_as_one(place: Place, queue: str) -> None:
    (uid,) = submit(place, 1, "t.copy", queue=queue)
    assert ended(place, uid, "completed")["result"] == "71"
    assert len(job_of(place, uid)["attempts"]) == 1


@pytest.mark.parametrize("queue", LANES)
@pytest.mark.parametrize("how", ["timeout", "cancel"])
def test_processes_of_a_job_end_with_it(place: Place, queue: str, how: str) -> None:
    (uid,) = submit(place, 1, "t.children", queue=queue, max_attempts=1, timeout=2.0 if how == "timeout" else 600.0)
    noted = place.scratch / uid
    wait_until(lambda: noted.exists() and noted.read_text().strip(), 30)
    child = int(noted.read_text())
    assert child in process_table()
    if how == "cancel":
        with place.instance.client() as client:
            client.post(f"/api/v1/jobs/{uid}/cancel", json={"reason": "test"}).raise_for_status()
    ended(place, uid, "dead" if how == "timeout" else "cancelled")
    wait_until(lambda: child not in process_table(), 15, "its process is still there")


def test_processes_of_a_forked_job_end_when_its_worker_is_stopped(place: Place) -> None:
    with fleet(place.instance, SLUICE_GRACE="0.5") as workers:
        own = place.instance.pids("worker-cpu")[0]
        os.kill(own, signal.SIGSTOP)
        name = workers.start("cpu")
        (uid,) = submit(place, 1, "t.children", queue="forked", delivery="at_most_once")
        noted = place.scratch / uid
        wait_until(lambda: noted.exists() and noted.read_text().strip(), 60)
        workers.signal(name, signal.SIGTERM)
        workers.processes[name].wait(30)
        wait_until(lambda: int(noted.read_text()) not in process_table(), 15)
        os.kill(own, signal.SIGCONT)
    job = ended(place, uid, "dead")
    assert (job["category"], job["error"]) == ("lost", "Its worker stopped before it was done.")
    with place.instance.client() as client:
        steps = client.get(f"/api/v1/jobs/{uid}/timeline").json()["results"]
    assert [step["state"] for step in steps].count("dead") == 1


def test_a_job_that_catches_some_interrupts_is_ended_by_a_later_one(place: Place) -> None:
    (uid,) = submit(place, 1, "t.deaf", queue="threaded", payload={"times": 2}, timeout=0.5, max_attempts=1)
    assert ended(place, uid, "dead", 15)["category"] == "timeout"
    assert (place.scratch / "caught").read_text().split().count(uid) == 2


@pytest.mark.timeout(180)
def test_a_thread_that_no_interrupt_ends_is_given_up_and_its_worker_makes_room(place: Place) -> None:
    instance = place.instance
    own = instance.pids("worker-io")[0]
    (uid,) = submit(place, 1, "t.deaf", queue="threaded", timeout=0.5, max_attempts=1)
    (beside,) = submit(place, 1, "t.sleep", queue="threaded", payload={"seconds": 12.0})

    def stuck() -> list[dict[str, Any]]:
        with instance.client() as client:
            rows = client.get("/api/v1/workers").json()["results"]
        return [row for row in rows if row["pid"] == own and row["lost_places"]]

    assert ended(place, uid, "dead", 30)["category"] == "timeout"
    wait_until(stuck, 30, "the lost place is shown")
    assert "1 stuck thread" in instance.manage("doctor", check=False).stdout
    assert any("worker.thread_stuck" in line for line in instance.lines)
    ended(place, beside, "completed")
    assert [one["outcome"] for one in job_of(place, beside)["attempts"]] == ["succeeded"], "it was let finish"
    wait_until(lambda: instance.pids("worker-io") not in ([], [own]), 60)
    wait_until(lambda: instance.readyz().status_code == 200, 60)
    assert own not in process_table()
    (after,) = submit(place, 1, "t.echo", queue="threaded")
    ended(place, after, "completed")


@pytest.mark.timeout(180)
def test_a_thread_in_a_call_that_no_interrupt_reaches_is_given_up_too(place: Place) -> None:
    own = place.instance.pids("worker-io")
    (uid,) = submit(place, 1, "t.stubborn", queue="threaded", timeout=0.5, max_attempts=1, payload={"seconds": 120.0})
    assert ended(place, uid, "dead", 30)["category"] == "timeout"
    wait_until(lambda: place.instance.pids("worker-io") not in ([], own), 60)


def test_a_forked_job_that_was_killed_leaves_no_zombie(place: Place) -> None:
    (worker,) = place.instance.pids("worker-cpu")
    ids = submit(place, 3, "t.stubborn", queue="forked", timeout=0.5, max_attempts=1)
    for uid in ids:
        ended(place, uid, "dead", 30)
    wait_until(lambda: not Path(f"/proc/{worker}/task/{worker}/children").read_text().split(), 15)


@pytest.mark.parametrize("queue", LANES)
def test_what_an_untidy_job_leaves_spoils_neither_its_end_nor_the_next_job(place: Place, queue: str) -> None:
    (uid,) = submit(place, 1, "t.untidy", queue=queue, max_attempts=1)
    ended(place, uid, "completed", 30)
    for type in ("t.rows", "t.arows"):
        (after,) = submit(place, 1, type, queue=queue, max_attempts=1)
        ended(place, after, "completed", 30)


@pytest.mark.postgres
@pytest.mark.timeout(240)
def test_jobs_find_sql_again_after_its_connections_were_cut(tmp_path: Path) -> None:
    """On every kind of thread: plain, of a loop, and of a process."""
    with failure_instance(SEPARATE, tmp_path, "--workers", "1") as place:
        for _ in range(2):
            for queue in LANES:
                for type in ("t.rows", "t.arows"):
                    (uid,) = submit(place, 1, type, queue=queue, max_attempts=1)
                    ended(place, uid, "completed", 60)
            place.rows("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
            wait_until(lambda: _answers(place), 60)


def _answers(place: Place) -> bool:
    try:
        return place.instance.readyz().status_code == 200
    except httpx.HTTPError:
        return False
