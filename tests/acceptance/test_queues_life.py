"""A job's life as callers and operators see it: order, waits, retries, dead letters, steering (C3 C5 C6 C7 C8 C11 C12 C13 C14)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.counter import Counter
from tests.acceptance.counter import counter as open_counter
from tests.acceptance.fleet import fleet
from tests.support.instance import wait_until

# C3: order and fairness


def test_c3_high_goes_before_low_and_first_before_second(counter: Counter) -> None:
    counter.steer("single", "pause")
    low = counter.jobs(3, queue="single", priority="low")
    normal = counter.jobs(3, queue="single")
    high = counter.jobs(3, queue="single", priority=0)
    counter.steer("single", "resume")
    counter.wait(*low)
    assert counter.order(*low, *normal, *high) == [*high, *normal, *low]


def test_c3_projects_share_by_weight(counter: Counter) -> None:
    counter.steer("single", "pause")
    heavy = counter.jobs(24, queue="single", project="heavy")
    light = counter.jobs(24, queue="single", project="light")
    counter.steer("single", "resume")
    counter.wait(*light)
    first = counter.order(*heavy, *light)[:24]
    assert 16 <= sum(uid in heavy for uid in first) <= 20, "three starts for one"


# C5: the life cycle


def test_c5_every_step_has_a_time_and_a_reason(counter: Counter) -> None:
    ids = counter.jobs(4, project="limited")
    counter.until(ids[2], lambda job: job["status"] == "rate_limited")
    told = counter.get(f"jobs/{ids[2]}/explain")
    assert "policy twice" in told["waits_for"] and told["until"].endswith("Z")
    counter.wait(*ids)
    steps = counter.get(f"jobs/{ids[2]}/timeline")["results"]
    assert [step["state"] for step in steps] == ["pending", "rate_limited", "executing", "completed"]
    assert steps[1]["reason"].startswith("policy twice, until ")
    assert all(step["at"].endswith("Z") for step in steps)
    assert [step["at"] for step in steps] == sorted(step["at"] for step in steps)


# C6: admission before a job runs


def test_c6_a_known_limit_costs_no_attempt_and_many_workers_keep_it(counter: Counter) -> None:
    with fleet(counter.place.instance) as workers:
        workers.start("io")
        workers.start("io")
        ids = counter.jobs(12, "t.sleep", project="narrow", payload={"seconds": 0.2})
        counter.wait(*ids)
    jobs = sorted((counter.look(uid) for uid in ids), key=lambda job: job["started_at"])
    assert all(len(job["attempts"]) == 1 for job in jobs)
    for one, following in zip(jobs, jobs[1:], strict=False):
        assert one["finished_at"] <= following["started_at"], "one at a time, whoever runs it"


# C7: retries


def test_c7_retries_follow_the_policy_and_are_counted(counter: Counter) -> None:
    good = counter.wait(counter.job("t.fail", queue="brisk", payload={"times": 2}))
    assert [attempt["outcome"] for attempt in good["attempts"]] == ["failed", "failed", "succeeded"]
    bad = counter.wait(counter.job("t.fail", queue="brisk"), status="dead")
    assert len(bad["attempts"]) == 3
    once = counter.wait(counter.job("t.fail", queue="brisk", max_attempts=1), status="dead")
    assert len(once["attempts"]) == 1
    clever = counter.wait(counter.job("t.fail", queue="clever", payload={"category": "validation"}), status="dead")
    assert len(clever["attempts"]) == 1, "what no repetition heals"


# C8: dead letters


def test_c8_letters_are_grouped_edited_replayed_and_discarded(counter: Counter) -> None:
    ids = [counter.job("t.fail", queue="brisk", project="heavy", max_attempts=1) for _ in range(4)]
    counter.wait(*ids, status="dead")
    (group,) = counter.get("dead-letters/groups?project=heavy")["results"]
    assert (group["count"], group["category"], group["severity"]) == (4, "server", "warning")
    letters = {row["job"]: row["id"] for row in counter.get("dead-letters?project=heavy")["results"]}
    edited = counter.post(f"dead-letters/{letters[ids[0]]}/replay", {"payload": {"times": 0}})
    assert edited["id"] == ids[0]
    assert counter.wait(ids[0])["result"] == "at last"
    counter.post(f"dead-letters/{letters[ids[0]]}/replay", expected=409)
    counter.post(f"dead-letters/{letters[ids[1]]}/replay", {"payload": {"times": "x"}}, expected=400)
    counter.post(f"dead-letters/{letters[ids[1]]}/discard", {"reason": "known"})
    assert counter.look(ids[1])["status"] == "dead"
    filter_ = {"project": "heavy", "fingerprint": group["fingerprint"]}
    dry = counter.post("dead-letters/replay", {"filter": filter_, "reason": "provider is back", "dry_run": True})
    assert counter.look(ids[2])["status"] == "dead", dry
    begun = counter.post("dead-letters/replay", {"filter": filter_, "reason": "provider is back"}, expected=202)
    wait_until(lambda: counter.get(f"dead-letters/actions/{begun['id']}")["finished_at"], 30)
    action = counter.get(f"dead-letters/actions/{begun['id']}")
    assert (action["total"], action["done"]) == (2, 2)
    for uid in ids[2:]:
        counter.until(uid, lambda job: job["status"] == "dead" and job["replays"] == 1)
    trail = counter.get("audit?verb=dead_letter.bulk_replay")["results"]
    assert trail[0]["reason"] == "provider is back"


def test_c8_a_job_is_retried_by_its_id(counter: Counter) -> None:
    uid = counter.job("t.until", queue="brisk", max_attempts=1, payload={"name": "c8"})
    counter.wait(uid, status="dead")
    (counter.scratch / "c8").touch()
    counter.post(f"jobs/{uid}/retry", {"reason": "it is there now"})
    assert counter.wait(uid)["result"] == "it is there"


def test_c8_transient_kinds_are_replayed_by_themselves(counter: Counter) -> None:
    uid = counter.job("t.fail", queue="forgiving", payload={"times": 1})
    assert counter.wait(uid, seconds=60)["replays"] == 1


# C11: steering


def test_c11_pause_resume_drain(counter: Counter) -> None:
    counter.steer("drained", "pause")
    uid = counter.job(queue="drained")
    assert "to be resumed" in counter.get(f"jobs/{uid}/explain")["waits_for"]
    counter.steer("drained", "drain")
    told = counter.post("jobs", {"type": "t.echo", "queue": "drained", "project": "acme"}, expected=503)
    assert told["type"] == "/problems/queue-draining"
    counter.steer("drained", "resume")
    counter.wait(uid)
    counter.wait(counter.job(queue="drained"))
    verbs = [row["verb"] for row in counter.get("audit?target=queue:drained")["results"]]
    assert verbs[:3] == ["queue.resume", "queue.drain", "queue.pause"]


def test_c11_a_threshold_holds_low_priorities_back_first(counter: Counter) -> None:
    counter.wait(*counter.jobs(5, project="thrifty"))
    low = counter.job(project="thrifty", priority="low")
    counter.wait(counter.job(project="thrifty"))
    counter.until(low, lambda job: job["status"] == "rate_limited")
    assert "thrift" in counter.look(low)["reason"]
    counter.post("limits/reset", {"policy": "thrift", "reason": "test"})
    counter.wait(low)


@pytest.mark.parametrize("state", ["scheduled", "held", "waiting"])
def test_c11_what_waits_is_cancelled(counter: Counter, state: str) -> None:
    fields: dict[str, Any] = {
        "scheduled": {"delay": 600},
        "held": {"after": [counter.job(delay=600)]},
        "waiting": {"queue": "parked"},
    }[state]
    counter.steer("parked", "pause")
    uid = counter.job(**fields)
    assert counter.post(f"jobs/{uid}/cancel", {"reason": "no longer needed"})["status"] == "cancelled"
    assert "no longer needed" in counter.look(uid)["reason"]
    counter.steer("parked", "resume")


# C12: how many at once


def test_c12_a_queue_runs_so_many_at_once_and_a_worker_several(counter: Counter) -> None:
    ids = counter.jobs(6, "t.sleep", queue="pair", payload={"seconds": 0.4})
    many = counter.jobs(20, "t.sleep", payload={"seconds": 1.5})
    wait_until(lambda: sum(counter.look(uid)["status"] == "executing" for uid in many) == 20, 30)
    counter.wait(*ids)
    jobs = [counter.look(uid) for uid in ids]
    for job in jobs:
        beside = [one for one in jobs if one["started_at"] <= job["started_at"] < one["finished_at"]]
        assert len(beside) <= 2
    counter.wait(*many)


# C13 and C14, on an instance of their own


def test_c13_c14_at_most_once_and_retention(tmp_path: Path) -> None:
    """The rest of C13 is in test_queues_kills.py and test_queues_outages.py."""
    with open_counter(tmp_path, SLUICE_RETENTION_DAYS="0.0002") as one:
        once = one.job("t.once", payload={"seconds": 30.0})
        wait_until((tmp_path / "once").exists, 30)
        done = one.job()
        one.wait(done)
        one.place.instance.kill_child("worker-io")
        letter = one.wait(once, status="dead", seconds=60)["dead_letter"]
        assert len((tmp_path / "once").read_text().splitlines()) == 1
        wait_until(lambda: one.call("GET", f"jobs/{done}").status_code == 404, 60, "completed ones go by age")
        assert one.look(once)["status"] == "dead", "dead ones stay until they are handled"
        one.post(f"dead-letters/{letter}/discard", {"reason": "seen"})
        wait_until(lambda: one.call("GET", f"jobs/{once}").status_code == 404, 60)
