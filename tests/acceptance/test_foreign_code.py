"""Tasks that end, outlive or upset the process that they run in, on both lanes of a real instance."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.plans import FAULTS
from tests.acceptance.worker_fleet import worker_fleet
from tests.support.instance import process_table, wait_until
from tests.support.shapes import Deployment

LANES = ["threaded", "forked"]


PLAN = FAULTS.variant("--workers", "1", SLUICE_STUCK_AFTER="5")
"""With a worker of each lane."""


@pytest.mark.timeout(180)
@pytest.mark.parametrize("queue", LANES)
def test_a_process_that_leaves_quietly_has_died(embedded: Deployment, queue: str) -> None:
    uid = embedded.product.submit("t.leave-quietly", queue=queue)
    job = embedded.product.wait(uid, status="dead", seconds=120)
    assert job["category"] == "poison"
    assert len(job["attempts"]) == (3 if queue == "threaded" else 2), "three deliveries in all"
    assert "exit code 0" in job["error"]


@pytest.mark.parametrize("queue", LANES)
def test_a_process_that_a_job_has_started_can_be_terminated(embedded: Deployment, queue: str) -> None:
    uid = embedded.product.submit("t.terminate", queue=queue)
    assert embedded.product.wait(uid)["result"] == -signal.SIGTERM


@pytest.mark.parametrize("queue", LANES)
def test_a_copy_of_the_worker_that_a_job_has_forked_does_not_go_on_as_one(embedded: Deployment, queue: str) -> None:
    uid = embedded.product.submit("t.copy", queue=queue)
    assert embedded.product.wait(uid)["result"] == "71"
    assert len(embedded.product.job(uid)["attempts"]) == 1


@pytest.mark.parametrize("queue", LANES)
@pytest.mark.parametrize("how", ["timeout", "cancel"])
def test_processes_of_a_job_end_with_it(embedded: Deployment, queue: str, how: str) -> None:
    uid = embedded.product.submit("t.children", queue=queue, max_attempts=1, timeout=2.0 if how == "timeout" else 600.0)
    noted = embedded.scratch / uid
    wait_until(lambda: noted.exists() and noted.read_text().strip(), 30)
    child = int(noted.read_text())
    assert child in process_table()
    if how == "cancel":
        embedded.product.cancel(uid)
    embedded.product.wait(uid, status="dead" if how == "timeout" else "cancelled")
    wait_until(lambda: child not in process_table(), 15, "its process is still there")


def test_processes_of_a_forked_job_end_when_its_worker_is_stopped(embedded: Deployment) -> None:
    with worker_fleet(embedded.instance, SLUICE_GRACE="0.5") as workers:
        own = embedded.instance.pids("worker-cpu")[0]
        os.kill(own, signal.SIGSTOP)
        name = workers.start("cpu")
        uid = embedded.product.submit("t.children", queue="forked", delivery="at_most_once")
        noted = embedded.scratch / uid
        wait_until(lambda: noted.exists() and noted.read_text().strip(), 60)
        workers.signal(name, signal.SIGTERM)
        workers.processes[name].wait(30)
        wait_until(lambda: int(noted.read_text()) not in process_table(), 15)
        os.kill(own, signal.SIGCONT)
    job = embedded.product.wait(uid, status="dead")
    assert (job["category"], job["error"]) == ("lost", "Its worker stopped before it was done.")
    steps = embedded.product.timeline(uid)
    assert [step["state"] for step in steps].count("dead") == 1


def test_a_job_that_catches_some_interrupts_is_ended_by_a_later_one(embedded: Deployment) -> None:
    uid = embedded.product.submit(
        "t.ignores-interrupts", queue="threaded", payload={"times": 2}, timeout=0.5, max_attempts=1
    )
    assert embedded.product.wait(uid, status="dead", seconds=15)["category"] == "timeout"
    assert (embedded.scratch / "caught").read_text().split().count(uid) == 2


@pytest.mark.timeout(180)
def test_a_thread_that_no_interrupt_ends_is_given_up_and_its_worker_makes_room(embedded: Deployment) -> None:
    instance = embedded.instance
    own = instance.pids("worker-io")[0]
    uid = embedded.product.submit("t.ignores-interrupts", queue="threaded", timeout=0.5, max_attempts=1)
    beside = embedded.product.submit("t.sleep", queue="threaded", payload={"seconds": 20.0})

    def stuck() -> list[dict[str, Any]]:
        rows = embedded.product.results("workers")
        return [row for row in rows if row["pid"] == own and row["lost_places"]]

    assert embedded.product.wait(uid, status="dead", seconds=30)["category"] == "timeout"
    wait_until(stuck, 30, "the lost embedded is shown")
    assert "1 stuck thread" in instance.manage("doctor", check=False).stdout
    assert any("worker.thread_stuck" in line for line in instance.lines)
    embedded.product.wait(beside)
    assert [one["outcome"] for one in embedded.product.job(beside)["attempts"]] == ["succeeded"], "it was let finish"
    wait_until(lambda: instance.pids("worker-io") not in ([], [own]), 60)
    wait_until(lambda: instance.readyz().status_code == 200, 60)
    assert own not in process_table()
    after = embedded.product.submit("t.echo", queue="threaded")
    embedded.product.wait(after)


@pytest.mark.timeout(180)
def test_a_thread_in_a_call_that_no_interrupt_reaches_is_given_up_too(embedded: Deployment) -> None:
    own = embedded.instance.pids("worker-io")
    uid = embedded.product.submit(
        "t.stubborn", queue="threaded", timeout=0.5, max_attempts=1, payload={"seconds": 120.0}
    )
    assert embedded.product.wait(uid, status="dead", seconds=30)["category"] == "timeout"
    wait_until(lambda: embedded.instance.pids("worker-io") not in ([], own), 60)


def test_a_forked_job_that_was_killed_leaves_no_zombie(embedded: Deployment) -> None:
    (worker,) = embedded.instance.pids("worker-cpu")
    ids = embedded.product.submit_bulk(3, "t.stubborn", queue="forked", timeout=0.5, max_attempts=1)
    for uid in ids:
        embedded.product.wait(uid, status="dead", seconds=30)
    wait_until(lambda: not Path(f"/proc/{worker}/task/{worker}/children").read_text().split(), 15)


@pytest.mark.parametrize("queue", LANES)
def test_what_an_untidy_job_leaves_spoils_neither_its_end_nor_the_next_job(embedded: Deployment, queue: str) -> None:
    uid = embedded.product.submit("t.untidy", queue=queue, max_attempts=1)
    embedded.product.wait(uid, status="completed", seconds=30)
    for type in ("t.rows", "t.arows"):
        after = embedded.product.submit(type, queue=queue, max_attempts=1)
        embedded.product.wait(after, status="completed", seconds=30)


@pytest.mark.postgres
@pytest.mark.timeout(240)
def test_jobs_find_sql_again_after_its_connections_were_cut(separate: Deployment) -> None:
    """On every kind of thread: plain, of a loop, and of a process."""
    for _ in range(2):
        for queue in LANES:
            for type in ("t.rows", "t.arows"):
                uid = separate.product.submit(type, queue=queue, max_attempts=1)
                separate.product.wait(uid, status="completed", seconds=60)
        separate.rows("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        wait_until(separate.instance.is_serving, 60)
