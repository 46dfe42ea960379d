"""Workers from outside: cancels and timeouts on both lanes, recycling, several jobs at once, one command to start one."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from tests.acceptance.failure_instance import failure_instance, submit
from tests.acceptance.fleet import fleet
from tests.acceptance.invariants import assert_consistent, counts, wait_for_the_end
from tests.support.instance import wait_until
from tests.support.shapes import EMBEDDED, Place


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One instance with a worker of each lane."""
    with failure_instance(EMBEDDED, tmp_path_factory.mktemp("scratch"), "--workers", "1") as made:
        yield made


def state(place: Place, uid: str) -> tuple[str, str]:
    ((status, category),) = place.rows("SELECT status, category FROM queues_job WHERE uid = ?", uid)
    return status, category


@pytest.mark.parametrize(("queue", "type"), [("threaded", "t.sleep"), ("forked", "t.sleep"), ("forked", "t.stubborn")])
def test_a_running_job_is_cancelled(place: Place, queue: str, type: str) -> None:
    """In a thread at its next Python instruction; in a process of its own by force, whatever it sits in."""
    (uid,) = submit(place, 1, type, queue=queue, payload={"seconds": 60.0})
    wait_until(lambda: state(place, uid)[0] == "executing", 30)
    with place.instance.client() as client:
        assert client.post(f"/api/v1/jobs/{uid}/cancel", json={"reason": "test"}).status_code == 200
        wait_until(lambda: state(place, uid)[0] == "cancelled", 20)
        again = client.post(f"/api/v1/jobs/{uid}/cancel", json={})
        assert again.status_code == 409
        steps = client.get(f"/api/v1/jobs/{uid}/timeline").json()["results"]
        (attempt,) = client.get(f"/api/v1/jobs/{uid}").json()["attempts"]
    assert (attempt["outcome"], attempt["counted"]) == ("cancelled", False)
    assert steps[-1]["state"] == "cancelled" and "while it ran" in steps[-1]["reason"]


@pytest.mark.parametrize(("queue", "type"), [("threaded", "t.sleep"), ("forked", "t.sleep"), ("forked", "t.stubborn")])
def test_a_job_that_takes_too_long_is_ended(place: Place, queue: str, type: str) -> None:
    (uid,) = submit(place, 1, type, queue=queue, payload={"seconds": 60.0}, timeout=0.5, max_attempts=1)
    wait_until(lambda: state(place, uid) == ("dead", "timeout"), 30, lambda: str(state(place, uid)))
    with place.instance.client() as client:
        job = client.get(f"/api/v1/jobs/{uid}").json()
    assert job["error"] == "Not done within 0.5 s."
    assert [attempt["category"] for attempt in job["attempts"]] == ["timeout"]


def test_forked_jobs_run_side_by_side(place: Place) -> None:
    submit(place, 3, "t.sleep", queue="forked", payload={"seconds": 20.0}, user="side")
    with place.instance.client() as client:
        forked = "/api/v1/jobs?status=executing&queue=forked"
        wait_until(lambda: len(client.get(forked).json()["results"]) == 3, 30)
        for row in client.get(forked).json()["results"]:
            client.post(f"/api/v1/jobs/{row['id']}/cancel", json={})
        wait_until(lambda: client.get(forked).json()["results"] == [], 30)


def test_a_worker_that_was_killed_is_started_again_under_its_name(place: Place) -> None:
    with fleet(place.instance) as workers:
        known = "SELECT count(*) FROM queues_workerprocess WHERE name = 'io-the-same' AND pid = ?"
        for _ in range(2):
            workers.start("io", name="io-the-same")
            process = workers.processes["io-the-same"]
            wait_until(lambda pid=process.pid: place.rows(known, pid) == [(1,)], 20)
            assert process.poll() is None
            workers.kill("io-the-same")


def test_a_worker_makes_room_after_so_many_jobs_and_finishes_what_it_has(place: Place) -> None:
    """It alone takes what is submitted: the instance's own worker is stopped meanwhile."""
    own = place.instance.pids("worker-io")[0]
    os.kill(own, signal.SIGSTOP)
    with fleet(place.instance, SLUICE_GRACE="0.1") as workers:
        first = workers.start("io", "--concurrency", "5", "--max-jobs", "8")
        ids = submit(place, 5, "t.once", payload={"seconds": 1.5}) + submit(
            place, 7, "t.once", payload={"seconds": 0.1}
        )
        wait_until(lambda: workers.processes[first].poll() is not None, 60)
        assert workers.processes[first].returncode == 0
        os.kill(own, signal.SIGCONT)
        assert counts(place, ids)["dead"] == 0, "nothing was left behind that may not run twice"
        wait_for_the_end(place, ids)
        assert_consistent(place, ids)
        ((done,),) = place.rows("SELECT jobs_done FROM queues_workerprocess WHERE name = ?", first)
        assert 7 <= done <= 12
