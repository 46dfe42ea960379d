"""A job's life as callers and operators see it: order, waits, retries, dead letters, queue states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.fleet import fleet
from tests.acceptance.jobs_client import JobsClient
from tests.acceptance.jobs_client import jobs_client as open_jobs_client
from tests.support.instance import wait_until

# Order and fairness


def test_high_goes_before_low_and_first_before_second(jobs_client: JobsClient) -> None:
    jobs_client.steer("single", "pause")
    low = jobs_client.jobs(3, queue="single", priority="low")
    normal = jobs_client.jobs(3, queue="single")
    high = jobs_client.jobs(3, queue="single", priority=0)
    jobs_client.steer("single", "resume")
    jobs_client.wait(*low)
    assert jobs_client.order(*low, *normal, *high) == [*high, *normal, *low]


def test_projects_share_by_weight(jobs_client: JobsClient) -> None:
    jobs_client.steer("single", "pause")
    heavy = jobs_client.jobs(24, queue="single", project="heavy")
    light = jobs_client.jobs(24, queue="single", project="light")
    jobs_client.steer("single", "resume")
    jobs_client.wait(*light)
    first = jobs_client.order(*heavy, *light)[:24]
    assert 16 <= sum(uid in heavy for uid in first) <= 20, "three starts for one"


# The life cycle


def test_every_step_has_a_time_and_a_reason(jobs_client: JobsClient) -> None:
    ids = jobs_client.jobs(4, project="limited")
    jobs_client.until(ids[2], lambda job: job["status"] == "rate_limited")
    reported = jobs_client.get(f"jobs/{ids[2]}/explain")
    assert "policy twice" in reported["waits_for"] and reported["until"].endswith("Z")
    jobs_client.wait(*ids)
    steps = jobs_client.get(f"jobs/{ids[2]}/timeline")["results"]
    assert [step["state"] for step in steps] == ["pending", "rate_limited", "executing", "completed"]
    assert steps[1]["reason"].startswith("policy twice, until ")
    assert all(step["at"].endswith("Z") for step in steps)
    assert [step["at"] for step in steps] == sorted(step["at"] for step in steps)


# Admission before a job runs


def test_a_known_limit_costs_no_attempt_and_many_workers_keep_it(jobs_client: JobsClient) -> None:
    with fleet(jobs_client.place.instance) as workers:
        workers.start("io")
        workers.start("io")
        ids = jobs_client.jobs(12, "t.sleep", project="narrow", payload={"seconds": 0.2})
        jobs_client.wait(*ids)
    jobs = sorted((jobs_client.look(uid) for uid in ids), key=lambda job: job["started_at"])
    assert all(len(job["attempts"]) == 1 for job in jobs)
    for one, following in zip(jobs, jobs[1:], strict=False):
        assert one["finished_at"] <= following["started_at"], "one at a time, whoever runs it"


# Retries


def test_retries_follow_the_policy_and_are_counted(jobs_client: JobsClient) -> None:
    good = jobs_client.wait(jobs_client.job("t.fail", queue="brisk", payload={"times": 2}))
    assert [attempt["outcome"] for attempt in good["attempts"]] == ["failed", "failed", "succeeded"]
    bad = jobs_client.wait(jobs_client.job("t.fail", queue="brisk"), status="dead")
    assert len(bad["attempts"]) == 3
    once = jobs_client.wait(jobs_client.job("t.fail", queue="brisk", max_attempts=1), status="dead")
    assert len(once["attempts"]) == 1
    clever = jobs_client.wait(
        jobs_client.job("t.fail", queue="clever", payload={"category": "validation"}), status="dead"
    )
    assert len(clever["attempts"]) == 1, "what no repetition heals"


# Dead letters


def test_letters_are_grouped_edited_replayed_and_discarded(jobs_client: JobsClient) -> None:
    ids = [jobs_client.job("t.fail", queue="brisk", project="heavy", max_attempts=1) for _ in range(4)]
    jobs_client.wait(*ids, status="dead")
    (group,) = jobs_client.get("dead-letters/groups?project=heavy")["results"]
    assert (group["count"], group["category"], group["severity"]) == (4, "server", "warning")
    letters = {row["job"]: row["id"] for row in jobs_client.get("dead-letters?project=heavy")["results"]}
    edited = jobs_client.post(f"dead-letters/{letters[ids[0]]}/replay", {"payload": {"times": 0}})
    assert edited["id"] == ids[0]
    assert jobs_client.wait(ids[0])["result"] == "at last"
    jobs_client.post(f"dead-letters/{letters[ids[0]]}/replay", expected=409)
    jobs_client.post(f"dead-letters/{letters[ids[1]]}/replay", {"payload": {"times": "x"}}, expected=400)
    jobs_client.post(f"dead-letters/{letters[ids[1]]}/discard", {"reason": "known"})
    assert jobs_client.look(ids[1])["status"] == "dead"
    filter_ = {"project": "heavy", "fingerprint": group["fingerprint"]}
    dry = jobs_client.post("dead-letters/replay", {"filter": filter_, "reason": "provider is back", "dry_run": True})
    assert jobs_client.look(ids[2])["status"] == "dead", dry
    begun = jobs_client.post("dead-letters/replay", {"filter": filter_, "reason": "provider is back"}, expected=202)
    wait_until(lambda: jobs_client.get(f"dead-letters/actions/{begun['id']}")["finished_at"], 30)
    action = jobs_client.get(f"dead-letters/actions/{begun['id']}")
    assert (action["total"], action["done"]) == (2, 2)
    for uid in ids[2:]:
        jobs_client.until(uid, lambda job: job["status"] == "dead" and job["replays"] == 1)
    trail = jobs_client.get("audit?verb=dead_letter.bulk_replay")["results"]
    assert trail[0]["reason"] == "provider is back"


def test_a_job_is_retried_by_its_id(jobs_client: JobsClient) -> None:
    uid = jobs_client.job("t.until", queue="brisk", max_attempts=1, payload={"name": "c8"})
    jobs_client.wait(uid, status="dead")
    (jobs_client.scratch / "c8").touch()
    jobs_client.post(f"jobs/{uid}/retry", {"reason": "it is there now"})
    assert jobs_client.wait(uid)["result"] == "it is there"


def test_transient_failures_are_replayed_automatically(jobs_client: JobsClient) -> None:
    uid = jobs_client.job("t.fail", queue="forgiving", payload={"times": 1})
    assert jobs_client.wait(uid, seconds=60)["replays"] == 1


# Pause, resume, drain, cancel


def test_pause_resume_drain(jobs_client: JobsClient) -> None:
    jobs_client.steer("drained", "pause")
    uid = jobs_client.job(queue="drained")
    assert "to be resumed" in jobs_client.get(f"jobs/{uid}/explain")["waits_for"]
    jobs_client.steer("drained", "drain")
    reported = jobs_client.post("jobs", {"type": "t.echo", "queue": "drained", "project": "acme"}, expected=503)
    assert reported["type"] == "/problems/queue-draining"
    jobs_client.steer("drained", "resume")
    jobs_client.wait(uid)
    jobs_client.wait(jobs_client.job(queue="drained"))
    verbs = [row["verb"] for row in jobs_client.get("audit?target=queue:drained")["results"]]
    assert verbs[:3] == ["queue.resume", "queue.drain", "queue.pause"]


def test_a_threshold_pauses_low_priorities_first(jobs_client: JobsClient) -> None:
    jobs_client.wait(*jobs_client.jobs(5, project="thrifty"))
    low = jobs_client.job(project="thrifty", priority="low")
    jobs_client.wait(jobs_client.job(project="thrifty"))
    jobs_client.until(low, lambda job: job["status"] == "rate_limited")
    assert "thrift" in jobs_client.look(low)["reason"]
    jobs_client.post("limits/reset", {"policy": "thrift", "reason": "test"})
    jobs_client.wait(low)


@pytest.mark.parametrize("state", ["scheduled", "held", "waiting"])
def test_a_waiting_job_is_cancelled(jobs_client: JobsClient, state: str) -> None:
    fields: dict[str, Any] = {
        "scheduled": {"delay": 600},
        "held": {"after": [jobs_client.job(delay=600)]},
        "waiting": {"queue": "parked"},
    }[state]
    jobs_client.steer("parked", "pause")
    uid = jobs_client.job(**fields)
    assert jobs_client.post(f"jobs/{uid}/cancel", {"reason": "no longer needed"})["status"] == "cancelled"
    assert "no longer needed" in jobs_client.look(uid)["reason"]
    jobs_client.steer("parked", "resume")


# Concurrency


def test_the_concurrency_of_queues_and_workers(jobs_client: JobsClient) -> None:
    ids = jobs_client.jobs(6, "t.sleep", queue="pair", payload={"seconds": 0.4})
    many = jobs_client.jobs(20, "t.sleep", payload={"seconds": 1.5})
    wait_until(lambda: sum(jobs_client.look(uid)["status"] == "executing" for uid in many) == 20, 30)
    jobs_client.wait(*ids)
    jobs = [jobs_client.look(uid) for uid in ids]
    for job in jobs:
        beside = [one for one in jobs if one["started_at"] <= job["started_at"] < one["finished_at"]]
        assert len(beside) <= 2
    jobs_client.wait(*many)


# On an instance of their own: delivery and retention


def test_at_most_once_and_retention(tmp_path: Path) -> None:
    """What survives kills and outages is in test_queues_kills.py and test_queues_outages.py."""
    with open_jobs_client(tmp_path, SLUICE_RETENTION_DAYS="0.0002") as one:
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
