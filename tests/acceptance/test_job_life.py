"""A job's life as callers and operators see it: order, waits, retries, dead letters, steering."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from tests.acceptance.plans import SHARED
from tests.acceptance.worker_fleet import worker_fleet
from tests.support.instance import wait_until
from tests.support.product import Product, job_of
from tests.support.shapes import EMBEDDED, Deployment, deployed

# Order and fairness


def test_high_goes_before_low_and_first_before_second(product: Product) -> None:
    product.pause("single")
    low = product.submit_bulk(3, queue="single", priority="low")
    normal = product.submit_bulk(3, queue="single")
    high = product.submit_bulk(3, queue="single", priority=0)
    product.resume("single")
    product.wait(*low)
    assert product.in_order_of_start(*low, *normal, *high) == [*high, *normal, *low]


def test_projects_share_by_weight(product: Product) -> None:
    product.pause("single")
    heavy = product.submit_bulk(24, queue="single", project="heavy")
    light = product.submit_bulk(24, queue="single", project="light")
    product.resume("single")
    product.wait(*light)
    first = product.in_order_of_start(*heavy, *light)[:24]
    assert 16 <= sum(uid in heavy for uid in first) <= 20, "three starts for one"


# The life cycle


def test_every_step_has_a_time_and_a_reason(product: Product) -> None:
    ids = product.submit_bulk(4, project="limited")
    product.until(ids[2], lambda job: job["status"] == "rate_limited")
    waiting = product.explain(ids[2])
    assert "policy twice" in waiting["waits_for"] and waiting["until"].endswith("Z")
    product.wait(*ids)
    steps = product.timeline(ids[2])
    assert [step["state"] for step in steps] == ["pending", "rate_limited", "executing", "completed"]
    assert steps[1]["reason"].startswith("policy twice, until ")
    assert all(step["at"].endswith("Z") for step in steps)
    assert [step["at"] for step in steps] == sorted(step["at"] for step in steps)


# Admission before a job runs


def test_a_known_limit_costs_no_attempt_and_many_workers_keep_it(shared: Deployment, product: Product) -> None:
    with worker_fleet(shared.instance) as workers:
        workers.start("io")
        workers.start("io")
        ids = product.submit_bulk(12, "t.sleep", project="narrow", payload={"seconds": 0.2})
        product.wait(*ids)
    jobs = sorted((product.job(uid) for uid in ids), key=lambda job: job["started_at"])
    assert all(len(job["attempts"]) == 1 for job in jobs)
    for one, following in zip(jobs, jobs[1:], strict=False):
        assert one["finished_at"] <= following["started_at"], "one at a time, on any worker"


# Stopping


def test_a_worker_that_waits_for_jobs_stops_by_a_signal(shared: Deployment) -> None:
    """It sends CLIENT UNBLOCK, which loses no parcel that Redis has moved."""
    with worker_fleet(shared.instance) as workers, shared.instance.redis() as redis:
        name = workers.start("io")
        wait_until(lambda: {"name": name, "cmd": "blmove"}.items() <= _client(redis, name).items(), 60)
        workers.signal(name, signal.SIGTERM)
        assert workers.processes[name].wait(30) == 0
        assert redis.info("commandstats")["cmdstat_client|unblock"]["calls"] >= 1


def _client(redis: Any, name: str) -> dict[str, Any]:
    return next((found for found in redis.client_list() if found["name"] == name), {})


# Retries


def test_retries_follow_the_policy_and_are_counted(product: Product) -> None:
    good = product.wait(product.submit("t.fail", queue="brisk", payload={"times": 2}))
    assert [attempt["outcome"] for attempt in good["attempts"]] == ["failed", "failed", "succeeded"]
    bad = product.wait(product.submit("t.fail", queue="brisk"), status="dead")
    assert len(bad["attempts"]) == 3
    once = product.wait(product.submit("t.fail", queue="brisk", max_attempts=1), status="dead")
    assert len(once["attempts"]) == 1
    clever = product.wait(product.submit("t.fail", queue="clever", payload={"category": "validation"}), status="dead")
    assert len(clever["attempts"]) == 1, "a failure that no retry can repair"


# Dead letters


def test_dead_letters_are_grouped_edited_replayed_and_discarded(product: Product) -> None:
    ids = [product.submit("t.fail", queue="brisk", project="heavy", max_attempts=1) for _ in range(4)]
    product.wait(*ids, status="dead")
    (group,) = product.results("dead-letters/groups", project="heavy")
    assert (group["count"], group["category"], group["severity"]) == (4, "server", "warning")
    letters = {row["job"]: row["id"] for row in product.results("dead-letters", project="heavy")}
    edited = product.post(f"dead-letters/{letters[ids[0]]}/replay", {"payload": {"times": 0}})
    assert edited["id"] == ids[0]
    assert product.wait(ids[0])["result"] == "at last"
    product.post(f"dead-letters/{letters[ids[0]]}/replay", expected=409)
    product.post(f"dead-letters/{letters[ids[1]]}/replay", {"payload": {"times": "x"}}, expected=400)
    product.post(f"dead-letters/{letters[ids[1]]}/discard", {"reason": "known"})
    assert product.job(ids[1])["status"] == "dead"
    filter_ = {"project": "heavy", "fingerprint": group["fingerprint"]}
    dry = product.post("dead-letters/replay", {"filter": filter_, "reason": "provider is back", "dry_run": True})
    assert product.job(ids[2])["status"] == "dead", dry
    begun = product.post("dead-letters/replay", {"filter": filter_, "reason": "provider is back"}, expected=202)
    wait_until(lambda: product.get(f"dead-letters/actions/{begun['id']}")["finished_at"], 30)
    action = product.get(f"dead-letters/actions/{begun['id']}")
    assert (action["total"], action["done"]) == (2, 2)
    for uid in ids[2:]:
        product.until(uid, lambda job: job["status"] == "dead" and job["replays"] == 1)
    trail = product.results("audit", verb="dead_letter.bulk_replay")
    assert trail[0]["reason"] == "provider is back"


def test_a_job_is_retried_by_its_id(shared: Deployment, product: Product) -> None:
    uid = product.submit("t.until", queue="brisk", max_attempts=1, payload={"name": "exists-later"})
    product.wait(uid, status="dead")
    (shared.scratch / "exists-later").touch()
    product.post(f"jobs/{uid}/retry", {"reason": "it is there now"})
    assert product.wait(uid)["result"] == "it is there"


def test_transient_failures_are_replayed_automatically(product: Product) -> None:
    uid = product.submit("t.fail", queue="forgiving", payload={"times": 1})
    assert product.wait(uid, seconds=60)["replays"] == 1


# Steering


def test_pause_resume_drain(product: Product) -> None:
    product.pause("drained")
    uid = product.submit(queue="drained")
    assert "to be resumed" in product.explain(uid)["waits_for"]
    product.drain("drained")
    problem = product.post("jobs", job_of(queue="drained"), expected=503)
    assert problem["type"] == "/problems/queue-draining"
    product.resume("drained")
    product.wait(uid)
    product.wait(product.submit(queue="drained"))
    verbs = [row["verb"] for row in product.results("audit", target="queue:drained")]
    assert verbs[:3] == ["queue.resume", "queue.drain", "queue.pause"]


def test_above_a_threshold_low_priorities_wait(product: Product) -> None:
    product.wait(*product.submit_bulk(5, project="thrifty"))
    low = product.submit(project="thrifty", priority="low")
    product.wait(product.submit(project="thrifty"))
    product.until(low, lambda job: job["status"] == "rate_limited")
    assert "thrift" in product.job(low)["reason"]
    product.post("limits/reset", {"policy": "thrift", "reason": "test"})
    product.wait(low)


@pytest.mark.parametrize("state", ["scheduled", "dependent", "waiting"])
def test_a_job_that_has_not_started_is_cancelled(product: Product, state: str) -> None:
    fields: dict[str, Any] = {
        "scheduled": {"delay": 600},
        "dependent": {"after": [product.submit(delay=600)]},
        "waiting": {"queue": "parked"},
    }[state]
    product.pause("parked")
    uid = product.submit(**fields)
    assert product.post(f"jobs/{uid}/cancel", {"reason": "no longer needed"})["status"] == "cancelled"
    assert "no longer needed" in product.job(uid)["reason"]
    product.resume("parked")


# How many at once


def test_a_queue_runs_so_many_at_once_and_a_worker_several(product: Product) -> None:
    ids = product.submit_bulk(6, "t.sleep", queue="pair", payload={"seconds": 0.4})
    many = product.submit_bulk(20, "t.sleep", payload={"seconds": 1.5})
    wait_until(lambda: sum(product.job(uid)["status"] == "executing" for uid in many) == 20, 30)
    product.wait(*ids)
    jobs = [product.job(uid) for uid in ids]
    for job in jobs:
        beside = [one for one in jobs if one["started_at"] <= job["started_at"] < one["finished_at"]]
        assert len(beside) <= 2
    product.wait(*many)


# On an instance of its own


def test_a_job_that_may_run_once_is_not_repeated_and_ended_jobs_are_pruned() -> None:
    with deployed(EMBEDDED, SHARED.variant(SLUICE_RETENTION_DAYS="0.0002")) as deployment:
        deployment.apply("version: 1\nprojects: [{slug: acme}]")
        product = deployment.product
        once = product.submit("t.once", payload={"seconds": 30.0})
        wait_until((deployment.scratch / "once").exists, 30)
        done = product.submit()
        product.wait(done)
        deployment.instance.kill_child("worker-io")
        letter = product.wait(once, status="dead")["dead_letter"]
        assert len((deployment.scratch / "once").read_text().splitlines()) == 1
        wait_until(
            lambda: product.call("GET", f"jobs/{done}").status_code == 404, 60, "completed ones are pruned by age"
        )
        assert product.status(once) == "dead", "dead ones stay until they are handled"
        product.post(f"dead-letters/{letter}/discard", {"reason": "seen"})
        wait_until(lambda: product.call("GET", f"jobs/{once}").status_code == 404, 60)
