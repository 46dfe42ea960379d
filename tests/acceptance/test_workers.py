"""Workers from outside: cancels and timeouts on both lanes, recycling, several jobs at once, one command to start one."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from tests.acceptance.invariants import assert_all_ended_once, counts, wait_for_the_end
from tests.acceptance.plans import FAULTS
from tests.acceptance.worker_fleet import worker_fleet
from tests.support.instance import wait_until
from tests.support.shapes import Deployment

PLAN = FAULTS.variant("--workers", "1")
"""With a worker of each lane."""


def state(embedded: Deployment, uid: str) -> tuple[str, str]:
    ((status, category),) = embedded.rows("SELECT status, category FROM queues_job WHERE uid = ?", uid)
    return status, category


@pytest.mark.parametrize(("queue", "type"), [("threaded", "t.sleep"), ("forked", "t.sleep"), ("forked", "t.stubborn")])
def test_a_running_job_is_cancelled(embedded: Deployment, queue: str, type: str) -> None:
    """In a thread at its next Python instruction; in a process of its own by force, whatever call it is in."""
    uid = embedded.product.submit(type, queue=queue, payload={"seconds": 60.0})
    wait_until(lambda: state(embedded, uid)[0] == "executing", 30)
    product = embedded.product
    product.cancel(uid)
    wait_until(lambda: state(embedded, uid)[0] == "cancelled", 20)
    product.post(f"jobs/{uid}/cancel", expected=409)
    steps = product.timeline(uid)
    (attempt,) = product.job(uid)["attempts"]
    assert (attempt["outcome"], attempt["counted"]) == ("cancelled", False)
    assert steps[-1]["state"] == "cancelled" and "while it ran" in steps[-1]["reason"]


@pytest.mark.parametrize(("queue", "type"), [("threaded", "t.sleep"), ("forked", "t.sleep"), ("forked", "t.stubborn")])
def test_a_job_that_takes_too_long_is_ended(embedded: Deployment, queue: str, type: str) -> None:
    uid = embedded.product.submit(type, queue=queue, payload={"seconds": 60.0}, timeout=0.5, max_attempts=1)
    wait_until(lambda: state(embedded, uid) == ("dead", "timeout"), 30, lambda: str(state(embedded, uid)))
    job = embedded.product.job(uid)
    assert job["error"] == "Not done within 0.5 s."
    assert [attempt["category"] for attempt in job["attempts"]] == ["timeout"]


def test_forked_jobs_run_side_by_side(embedded: Deployment) -> None:
    product = embedded.product
    product.submit_bulk(3, "t.sleep", queue="forked", payload={"seconds": 20.0}, user="side")

    def running() -> list[dict[str, Any]]:
        return product.results("jobs", status="executing", queue="forked")

    wait_until(lambda: len(running()) == 3, 30)
    for row in running():
        product.cancel(row["id"])
    wait_until(lambda: running() == [], 30)


def test_a_worker_that_was_killed_is_started_again_under_its_name(embedded: Deployment) -> None:
    with worker_fleet(embedded.instance) as workers:
        known = "SELECT count(*) FROM queues_workerprocess WHERE name = 'io-the-same' AND pid = ?"
        for _ in range(2):
            workers.start("io", name="io-the-same")
            process = workers.processes["io-the-same"]
            wait_until(lambda pid=process.pid: embedded.rows(known, pid) == [(1,)], 20)
            assert process.poll() is None
            workers.kill("io-the-same")


def test_a_worker_ends_after_its_maximum_of_jobs_and_finishes_those_it_has(embedded: Deployment) -> None:
    """It alone takes what is submitted: the instance's own worker is stopped meanwhile."""
    own = embedded.instance.pids("worker-io")[0]
    os.kill(own, signal.SIGSTOP)
    with worker_fleet(embedded.instance, SLUICE_GRACE="0.1") as workers:
        first = workers.start("io", "--concurrency", "5", "--max-jobs", "8")
        ids = embedded.product.submit_bulk(5, "t.once", payload={"seconds": 1.5}) + embedded.product.submit_bulk(
            7, "t.once", payload={"seconds": 0.1}
        )
        wait_until(lambda: workers.processes[first].poll() is not None, 60)
        assert workers.processes[first].returncode == 0
        os.kill(own, signal.SIGCONT)
        assert counts(embedded, ids)["dead"] == 0, "it left no job unfinished that may not run twice"
        wait_for_the_end(embedded, ids)
        assert_all_ended_once(embedded, ids)
        ((done,),) = embedded.rows("SELECT jobs_done FROM queues_workerprocess WHERE name = ?", first)
        assert 7 <= done <= 12
