"""Queues as callers see them: submitting, refusals, job types, batches, events, callbacks, figures."""

from __future__ import annotations

import base64
import hashlib
import hmac
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.support.instance import BASE_DIR, wait_until
from tests.support.product import Product, job_of
from tests.support.receiver import Receiver, receiving
from tests.support.shapes import Deployment


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


# A job and its id at once


def test_a_job_with_every_field(product: Product) -> None:
    asked = {
        "type": "t.echo", "queue": "batch", "priority": "high", "payload": {"text": "hi", "password": "hush"},
        "project": "acme", "user": "u-17", "delay": 0.2, "cost": {"tokens": 900}, "max_attempts": 4, "timeout": 60,
        "keys": {"chat": "-100123"}, "delivery": "at_least_once",
    }  # fmt: skip
    answer = product.call("POST", "jobs", asked)
    assert answer.status_code == 202
    made = answer.json()
    assert answer.headers["location"] == f"/api/v1/jobs/{made['id']}"
    assert made["status"] == "pending"
    job = product.wait(made["id"])
    for name in ("type", "queue", "project", "user", "keys", "max_attempts", "timeout", "delivery"):
        assert job[name] == asked[name], name
    assert (job["priority"], job["cost"]) == (1, {"tokens": 900, "requests": 1})
    assert job["payload"] == {"text": "hi", "password": "[redacted]"}
    assert job["result"] == {"text": "hi", "attempt": 1}


def test_thousands_in_one_call(product: Product) -> None:
    ids = product.submit_bulk(3000, batch={"name": "thousands"})
    assert len(set(ids)) == 3000
    product.wait(ids[0], ids[-1], seconds=90)
    batch = product.job(ids[0])["batch"]
    wait_until(lambda: product.totals(batch)["completed"] == 3000, 90)


def test_fifty_equal_posts_with_one_key_are_one_job(shared: Deployment, product: Product) -> None:
    body, key = job_of("t.mark", payload={"name": "fifty"}), {"Idempotency-Key": "fifty"}

    def submit(_: int) -> tuple[int, str]:
        response = product.call("POST", "jobs", body, headers=key)
        return response.status_code, response.json()["id"]

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(submit, range(50)))
    assert Counter(status for status, _ in answers) == {202: 1, 200: 49}
    (uid,) = {uid for _, uid in answers}
    product.wait(uid)
    assert product.post("jobs", body, headers=key)["status"] == "completed", "after completion, too"
    product.post("jobs", {**body, "priority": "low"}, expected=409, headers=key)
    assert len((shared.scratch / "fifty").read_text().splitlines()) == 1


# Queues as data


def test_default_and_configured_queues(shared: Deployment, product: Product) -> None:
    queues = {row["name"]: row for row in product.results("queues")}
    defaults = {"embeddings", "agent_tasks", "exports", "batch", "notifications", "cleanup", "health_checks"}
    assert defaults <= queues.keys()
    for name in defaults:
        assert queues[name]["max_size"] > 0 and queues[name]["timeout"] > 0 and queues[name]["retry_policy"]
    assert (queues["small"]["max_size"], queues["pair"]["concurrency"]) == (5, 2)
    changed = "version: 1\nqueues: [{name: changing, max_size: 7, concurrency: 3, lane: cpu, timeout: 5s, pool: llm, priority_levels: 3}]\n"
    shared.apply(changed)
    row = product.get("queues/changing")
    assert [row[name] for name in ("max_size", "concurrency", "lane", "timeout", "pool")] == [7, 3, "cpu", 5.0, "llm"]
    assert product.job(product.submit(queue="changing", priority=3, delay=3600))["priority"] == 1, "of three levels"


# Full queues


def test_a_full_queue_refuses_jobs_and_drops_none(product: Product) -> None:
    product.pause("small")
    body = job_of(queue="small")

    def submit(_: int) -> tuple[int, Any, Any]:
        response = product.call("POST", "jobs", body)
        return response.status_code, response.headers.get("retry-after"), response.json()

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(submit, range(40)))
    accepted = [made["id"] for status, _, made in answers if status == 202]
    refused = [(after, problem) for status, after, problem in answers if status == 429]
    assert (len(accepted), len(refused)) == (5, 35)
    assert all(int(after) >= 1 and problem["type"] == "/problems/queue-full" for after, problem in refused)
    many = {"jobs": [body] * 6}
    assert product.post("jobs/bulk", many, expected=422)["type"] == "/problems/queue-too-small"
    product.post("jobs/bulk", {"jobs": [body] * 2}, expected=429)
    product.resume("small")
    product.wait(*accepted)
    assert len(product.get("jobs?queue=small")["results"]) == 5, "all or nothing"


# Job types


def test_a_call_through_a_pool_needs_no_code(product: Product) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 5}
    payload = {"pool": "llm", "method": "POST", "path": "/v1/chat/completions", "json": body}
    job = product.wait(product.submit("http.request", payload=payload))
    assert job["result"]["status"] == 200 and job["result"]["body"]["object"] == "chat.completion"
    assert [attempt["account"] for attempt in job["attempts"]] == ["llm/a1"]


def test_functions_plain_and_async(product: Product) -> None:
    assert product.wait(product.submit("t.asleep", payload={"text": "x"}))["result"] == "x"


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"type": "t.nobody"}, "#/type"),
        ({"queue": "nowhere"}, "#/queue"),
        ({"payload": {"text": 5}}, "#/payload/text"),
        ({"payload": {"other": 1}}, "#/payload/other"),
        ({"type": "http.request", "payload": {"pool": "llm", "path": "https://elsewhere/"}}, "#/payload/path"),
        ({"nonsense": 1}, "#/nonsense"),
    ],
)
def test_a_job_that_no_worker_could_run_is_refused(product: Product, fields: Any, pointer: str) -> None:
    problem = product.post("jobs", job_of(**fields), expected=400)
    assert problem["errors"][0]["pointer"] == pointer


def test_tasks_of_djangos_framework(shared: Deployment) -> None:
    """From a process of a project that uses Django's framework: enqueue, wait, read the result."""
    script = (
        "import time, django; django.setup()\n"
        "from tests.acceptance.django_tasks_here import add, divide\n"
        "good, bad = add.enqueue(2, right=3), divide.enqueue(1, 0)\n"
        "until = time.monotonic() + 60\n"
        "while not (good.is_finished and bad.is_finished) and time.monotonic() < until:\n"
        "    time.sleep(0.1); good.refresh(); bad.refresh()\n"
        "print(good.return_value, bad.status, bad.errors[0].exception_class_path)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=BASE_DIR, env=shared.instance.environ, capture_output=True, text=True
    )
    assert done.stdout.split() == ["5", "FAILED", "builtins.ZeroDivisionError"], done.stdout + done.stderr


# Following


def test_lists_with_filters_in_pages(product: Product) -> None:
    ids = product.submit_bulk(7, user="lister", priority=2)
    product.wait(*ids)
    seen: list[str] = []
    cursor = ""
    while True:
        page = product.get(f"jobs?q=lister&status=completed&queue=batch&type=t.echo&limit=3{cursor}")
        seen += [row["id"] for row in page["results"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert seen == ids[::-1], "newest first, each once"
    assert product.call("GET", "jobs?status=wrong").status_code == 400
    batch = product.job(ids[0])["batch"]
    assert len(product.get(f"jobs?batch={batch}")["results"]) == 7
    assert product.get("queue/requests?limit=5")["results"][0]["id"]


def test_a_batch_has_its_progress_and_an_estimate_of_its_end(product: Product) -> None:
    ids = product.submit_bulk(30, "t.sleep", batch={"name": "progress"}, queue="pair", payload={"seconds": 0.3})
    uid = product.job(ids[0])["batch"]
    wait_until(lambda: product.totals(uid)["completed"] >= 4, 60)
    batch = product.get(f"batches/{uid}")
    assert batch["total"] == sum(batch["totals"].values()) == 30
    assert batch["rate"] > 0 and batch["eta"].endswith("Z")
    waiting = product.explain(ids[-1])
    assert waiting["ahead"] >= 1 and waiting["waits_for"]
    wait_until(lambda: product.get(f"batches/{uid}")["finished_at"], 60)


def test_live_events_with_what_was_missed(shared: Deployment, product: Product) -> None:
    events = shared.events()
    uid = product.submit()
    wait_until(lambda: events.names(job=uid)[-1:] == ["job.completed"], 30)
    assert events.names(job=uid) == ["job.executing", "job.completed"]
    first = events.with_members(job=uid)[0].id
    again = shared.events(since=first)
    wait_until(lambda: again.names(job=uid) == ["job.completed"], 20, "the events after the last one received")


def test_signed_callbacks_for_a_job_and_a_batch(shared: Deployment, product: Product, receiver: Receiver) -> None:
    secret = shared.instance.manage("webhook_secret", "acme").stdout.split()[-1]
    uid = product.submit(callback_url=receiver.url)
    product.submit_bulk(2, batch={"name": "with-callback", "callback_url": receiver.url})
    wait_until(lambda: len(receiver.got) == 2, 30)
    called = {}
    for (_, headers, callback), body in zip(receiver.got, receiver.bodies, strict=True):
        key = base64.b64decode(secret.removeprefix("whsec_"))
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        assert headers["webhook-signature"] == f"v1,{expected}"
        called[callback["type"]] = callback["data"]
    assert called["job.completed"]["id"] == uid
    assert called["batch.completed"]["totals"]["completed"] == 2


# Figures


def test_depth_age_rates_waits_and_shares(product: Product) -> None:
    product.pause("parked")
    for priority, count in (("high", 1), ("normal", 2), ("low", 3)):
        product.submit_bulk(count, queue="parked", priority=priority)
    row = product.get("queues/parked")
    assert (row["state"], row["waiting"], row["by_priority"]) == ("paused", 6, {"high": 1, "normal": 2, "low": 3})
    assert row["oldest_age"] > 0 and row["rate_in"] > 0
    stats = product.get("queue/stats")
    assert {"high", "normal", "low", "retry", "dlq"} == set(stats["stats"])
    assert stats["total_queued"] >= 6
    product.resume("parked")
    wait_until(lambda: product.get("queues/parked")["waiting"] == 0, 30)
    wait_until(lambda: product.get("queues/parked")["success_rate"] == 1.0, 30)
    row = product.get("queues/parked")
    assert row["rate_out"] > 0 and row["wait"]["p95"] >= row["wait"]["p50"] > 0 and row["run"]["p50"] >= 0
    status = product.get("queue/status")
    assert status["max_concurrent"] >= 50 and status["completed"] >= 6
    workers = product.results("workers")
    assert {"io", "cpu"} <= {lane for one in workers for lane in one["queues"]}
    wait_until(lambda: sum(one["jobs_done"] for one in product.results("workers")) >= 6, 30)
    metrics = product.http.get("/metrics").text
    assert 'sluice_queue_depth{priority="high",queue="parked"} 0.0' in metrics


# Dependencies, uniqueness, what follows a batch, recurring jobs


def test_a_job_waits_for_others_and_is_cancelled_when_one_fails(product: Product) -> None:
    first = product.submit("t.sleep", payload={"seconds": 0.5})
    second = product.submit(after=[first])
    assert first in product.explain(second)["waits_for"]
    product.wait(first, second)
    assert product.in_order_of_start(first, second) == [first, second]
    bad = product.submit("t.fail", payload={"category": "validation"})
    dependent = product.submit(after=[bad])
    assert bad in product.wait(dependent, status="cancelled")["reason"]


def test_a_unique_job_is_returned_instead_of_a_second_one(product: Product) -> None:
    body = job_of("t.sleep", payload={"seconds": 1.0}, unique_for=60)
    first = product.post("jobs", body, expected=202)["id"]
    assert product.post("jobs", body, expected=200)["id"] == first
    product.wait(first)
    assert product.post("jobs", body, expected=202)["id"] != first, "the first one has ended"


def test_a_job_follows_a_batch(product: Product) -> None:
    jobs = [job_of("t.sleep", payload={"seconds": 0.3})] * 3
    made = product.post("jobs/bulk", {"batch": {"then": job_of()}, "jobs": jobs}, expected=202)
    done = product.wait(made["batch"]["then"])
    ended = max(product.wait(uid)["finished_at"] for uid in made["ids"])
    assert done["started_at"] >= ended


def test_a_recurring_job_runs_once_per_tick(shared: Deployment) -> None:
    # Due since the last full minute, so that the test need not wait for the next one.
    ticks = shared.scratch / "ticks"
    if not ticks.exists():
        minute = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:00")
        shared.instance.execute("UPDATE queues_recurring SET next_at = ?", minute)
    wait_until(ticks.exists, 90)
    starts = [float(line.split()[2]) for line in ticks.read_text().splitlines()]
    minutes = Counter(int(at // 60) for at in starts)
    assert set(minutes.values()) == {1}, starts
