"""Queues as callers see them: submitting, refusals, job types, batches, events, callbacks, figures."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import subprocess
import sys
import threading
from collections import Counter as Tally
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.acceptance.jobs_client import JobsClient
from tests.acceptance.test_front import EventListener
from tests.support.instance import BASE_DIR, wait_until


class Receiver(ThreadingHTTPServer):
    """A real HTTP server that keeps what it gets."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *args: object) -> None:
                """Keeps the tests' output clean."""

        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/hook"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


# Submitting


def test_a_job_with_every_member(jobs_client: JobsClient) -> None:
    asked = {
        "type": "t.echo", "queue": "batch", "priority": "high", "payload": {"text": "hi", "password": "hush"},
        "project": "acme", "user": "u-17", "delay": 0.2, "cost": {"tokens": 900}, "max_attempts": 4, "timeout": 60,
        "keys": {"chat": "-100123"}, "delivery": "at_least_once",
    }  # fmt: skip
    answer = jobs_client.call("POST", "jobs", asked)
    assert answer.status_code == 202
    made = answer.json()
    assert answer.headers["location"] == f"/api/v1/jobs/{made['id']}"
    assert made["status"] == "pending"
    job = jobs_client.wait(made["id"])
    for name in ("type", "queue", "project", "user", "keys", "max_attempts", "timeout", "delivery"):
        assert job[name] == asked[name], name
    assert (job["priority"], job["cost"]) == (1, {"tokens": 900, "requests": 1})
    assert job["payload"] == {"text": "hi", "password": "[redacted]"}
    assert job["result"] == {"text": "hi", "attempt": 1}


def test_thousands_in_one_call(jobs_client: JobsClient) -> None:
    ids = jobs_client.jobs(3000, batch={"name": "thousands"})
    assert len(set(ids)) == 3000
    jobs_client.wait(ids[0], ids[-1], seconds=90)
    batch = jobs_client.look(ids[0])["batch"]
    wait_until(lambda: jobs_client.get(f"batches/{batch}")["totals"]["completed"] == 3000, 90)


def test_fifty_equal_posts_with_one_key_are_one_job(jobs_client: JobsClient) -> None:
    body = {"type": "t.mark", "queue": "batch", "project": "acme", "payload": {"name": "fifty"}}

    def one(_: int) -> tuple[int, str]:
        with jobs_client.place.instance.client() as http:
            answer = http.post("/api/v1/jobs", json=body, headers={"Idempotency-Key": "fifty"})
            return answer.status_code, answer.json()["id"]

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(one, range(50)))
    assert Tally(status for status, _ in answers) == {202: 1, 200: 49}
    (uid,) = {uid for _, uid in answers}
    jobs_client.wait(uid)
    key = {"Idempotency-Key": "fifty"}
    assert jobs_client.post("jobs", body, **key)["status"] == "completed", "after completion, too"
    jobs_client.post("jobs", {**body, "priority": "low"}, expected=409, **key)
    assert len((jobs_client.scratch / "fifty").read_text().splitlines()) == 1


# Configured queues


def test_the_seven_default_queues_and_configured_ones(jobs_client: JobsClient) -> None:
    queues = {row["name"]: row for row in jobs_client.get("queues")["results"]}
    defaults = {"embeddings", "agent_tasks", "exports", "batch", "notifications", "cleanup", "health_checks"}
    assert defaults <= queues.keys()
    for name in defaults:
        assert queues[name]["max_size"] > 0 and queues[name]["timeout"] > 0 and queues[name]["retry_policy"]
    assert (queues["small"]["max_size"], queues["pair"]["concurrency"]) == (5, 2)
    changed = "version: 1\nqueues: [{name: changing, max_size: 7, concurrency: 3, lane: cpu, timeout: 5s, pool: llm, priority_levels: 3}]\n"
    jobs_client.place.instance.manage("apply", "-", stdin=changed)
    row = jobs_client.get("queues/changing")
    assert [row[name] for name in ("max_size", "concurrency", "lane", "timeout", "pool")] == [7, 3, "cpu", 5.0, "llm"]
    assert jobs_client.look(jobs_client.job(queue="changing", priority=3, delay=3600))["priority"] == 1, (
        "of three levels"
    )


# Full queues


def test_a_full_queue_says_so_and_drops_nothing(jobs_client: JobsClient) -> None:
    jobs_client.steer("small", "pause")
    body = {"type": "t.echo", "queue": "small", "project": "acme"}

    def one(_: int) -> tuple[int, Any, Any]:
        with jobs_client.place.instance.client() as http:
            answer = http.post("/api/v1/jobs", json=body)
            return answer.status_code, answer.headers.get("retry-after"), answer.json()

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(one, range(40)))
    accepted = [reported["id"] for status, _, reported in answers if status == 202]
    refused = [(after, reported) for status, after, reported in answers if status == 429]
    assert (len(accepted), len(refused)) == (5, 35)
    assert all(int(after) >= 1 and reported["type"] == "/problems/queue-full" for after, reported in refused)
    many = {"jobs": [body] * 6}
    assert jobs_client.post("jobs/bulk", many, expected=422)["type"] == "/problems/queue-too-small"
    jobs_client.post("jobs/bulk", {"jobs": [body] * 2}, expected=429)
    jobs_client.steer("small", "resume")
    jobs_client.wait(*accepted)
    assert len(jobs_client.get("jobs?queue=small")["results"]) == 5, "all or nothing"


# Job types


def test_a_call_through_a_pool_needs_no_code(jobs_client: JobsClient) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 5}
    payload = {"pool": "llm", "method": "POST", "path": "/v1/chat/completions", "json": body}
    job = jobs_client.wait(jobs_client.job("http.request", payload=payload))
    assert job["result"]["status"] == 200 and job["result"]["body"]["object"] == "chat.completion"
    assert [attempt["account"] for attempt in job["attempts"]] == ["llm/a1"]


def test_functions_plain_and_async(jobs_client: JobsClient) -> None:
    assert jobs_client.wait(jobs_client.job("t.asleep", payload={"text": "x"}))["result"] == "x"


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
def test_a_job_that_no_worker_could_run_is_refused_at_once(jobs_client: JobsClient, fields: Any, pointer: str) -> None:
    reported = jobs_client.post("jobs", {"type": "t.echo", "queue": "batch", "project": "acme", **fields}, expected=400)
    assert reported["errors"][0]["pointer"] == pointer


def test_tasks_of_djangos_framework(jobs_client: JobsClient) -> None:
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
        [sys.executable, "-c", script],
        cwd=BASE_DIR,
        env=jobs_client.place.instance.environ,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["5", "FAILED", "builtins.ZeroDivisionError"], done.stdout + done.stderr


# Lists, batches, events, callbacks


def test_lists_with_filters_in_pages(jobs_client: JobsClient) -> None:
    ids = jobs_client.jobs(7, user="lister", priority=2)
    jobs_client.wait(*ids)
    seen: list[str] = []
    cursor = ""
    while True:
        page = jobs_client.get(f"jobs?q=lister&status=completed&queue=batch&type=t.echo&limit=3{cursor}")
        seen += [row["id"] for row in page["results"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert seen == ids[::-1], "newest first, each once"
    assert jobs_client.call("GET", "jobs?status=wrong").status_code == 400
    batch = jobs_client.look(ids[0])["batch"]
    assert len(jobs_client.get(f"jobs?batch={batch}")["results"]) == 7
    assert jobs_client.get("queue/requests?limit=5")["results"][0]["id"]


def test_a_batch_reports_its_progress_and_estimated_end(jobs_client: JobsClient) -> None:
    ids = jobs_client.jobs(30, "t.sleep", batch={"name": "progress"}, queue="pair", payload={"seconds": 0.3})
    uid = jobs_client.look(ids[0])["batch"]
    wait_until(lambda: jobs_client.get(f"batches/{uid}")["totals"]["completed"] >= 4, 60)
    batch = jobs_client.get(f"batches/{uid}")
    assert batch["total"] == sum(batch["totals"].values()) == 30
    assert batch["rate"] > 0 and batch["eta"].endswith("Z")
    reported = jobs_client.get(f"jobs/{ids[-1]}/explain")
    assert reported["ahead"] >= 1 and reported["waits_for"]
    wait_until(lambda: jobs_client.get(f"batches/{uid}")["finished_at"], 60)


def test_live_events_with_what_was_missed(jobs_client: JobsClient) -> None:
    listener = EventListener(jobs_client.place.instance)
    uid = jobs_client.job()
    wait_until(lambda: listener.names(job=uid)[-1:] == ["job.completed"], 30)
    assert listener.names(job=uid) == ["job.executing", "job.completed"]
    first = next(event_id for event_id, _, reported in listener.received if reported["data"].get("job") == uid)
    with (
        jobs_client.place.instance.client() as http,
        http.stream("GET", "/api/v1/events", headers={"Last-Event-ID": first}, timeout=20) as answer,
    ):
        missed = []
        for line in answer.iter_lines():
            if line.startswith("data: "):
                missed.append(json.loads(line.removeprefix("data: ")))
                if missed[-1]["data"].get("job") == uid:
                    break
    assert missed[-1]["event"] == "job.completed", "what came after the last event that was received"


def test_signed_callbacks_for_a_job_and_a_batch(jobs_client: JobsClient, receiver: Receiver) -> None:
    secret = jobs_client.place.instance.manage("webhook_secret", "acme").stdout.split()[-1]
    uid = jobs_client.job(callback_url=receiver.url)
    jobs_client.jobs(2, batch={"name": "reported", "callback_url": receiver.url})
    wait_until(lambda: len(receiver.got) == 2, 30)
    reported = {}
    for headers, body in receiver.got:
        key = base64.b64decode(secret.removeprefix("whsec_"))
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        assert headers["webhook-signature"] == f"v1,{expected}"
        reported[json.loads(body)["type"]] = json.loads(body)["data"]
    assert reported["job.completed"]["id"] == uid
    assert reported["batch.completed"]["totals"]["completed"] == 2


# Statistics


def test_depth_age_rates_waits_and_shares(jobs_client: JobsClient) -> None:
    jobs_client.steer("parked", "pause")
    for priority, count in (("high", 1), ("normal", 2), ("low", 3)):
        jobs_client.jobs(count, queue="parked", priority=priority)
    row = jobs_client.get("queues/parked")
    assert (row["state"], row["waiting"], row["by_priority"]) == ("paused", 6, {"high": 1, "normal": 2, "low": 3})
    assert row["oldest_age"] > 0 and row["rate_in"] > 0
    stats = jobs_client.get("queue/stats")
    assert {"high", "normal", "low", "retry", "dlq"} == set(stats["stats"])
    assert stats["total_queued"] >= 6
    jobs_client.steer("parked", "resume")
    wait_until(lambda: jobs_client.get("queues/parked")["waiting"] == 0, 30)
    wait_until(lambda: jobs_client.get("queues/parked")["success_rate"] == 1.0, 30)
    row = jobs_client.get("queues/parked")
    assert row["rate_out"] > 0 and row["wait"]["p95"] >= row["wait"]["p50"] > 0 and row["run"]["p50"] >= 0
    status = jobs_client.get("queue/status")
    assert status["max_concurrent"] >= 50 and status["completed"] >= 6
    workers = jobs_client.get("workers")["results"]
    assert {"io", "cpu"} <= {lane for one in workers for lane in one["queues"]}
    wait_until(lambda: sum(one["jobs_done"] for one in jobs_client.get("workers")["results"]) >= 6, 30)
    metrics = jobs_client.http.get("/metrics").text
    assert 'sluice_queue_depth{priority="high",queue="parked"} 0.0' in metrics


# Dependencies, uniqueness, what follows a batch, recurring jobs


def test_a_job_waits_for_others_and_is_cancelled_with_them(jobs_client: JobsClient) -> None:
    first = jobs_client.job("t.sleep", payload={"seconds": 0.5})
    second = jobs_client.job(after=[first])
    assert first in jobs_client.get(f"jobs/{second}/explain")["waits_for"]
    jobs_client.wait(first, second)
    assert jobs_client.order(first, second) == [first, second]
    bad = jobs_client.job("t.fail", payload={"category": "validation"})
    falls = jobs_client.job(after=[bad])
    assert bad in jobs_client.wait(falls, status="cancelled")["reason"]


def test_a_unique_job_is_returned_instead_of_a_second_one(jobs_client: JobsClient) -> None:
    body = {"type": "t.sleep", "queue": "batch", "project": "acme", "payload": {"seconds": 1.0}, "unique_for": 60}
    first = jobs_client.post("jobs", body, expected=202)["id"]
    assert jobs_client.post("jobs", body, expected=200)["id"] == first
    jobs_client.wait(first)
    assert jobs_client.post("jobs", body, expected=202)["id"] != first, "the first one has ended"


def test_a_job_follows_a_batch(jobs_client: JobsClient) -> None:
    body = {"type": "t.sleep", "queue": "batch", "project": "acme", "payload": {"seconds": 0.3}}
    last = {"type": "t.echo", "queue": "batch", "project": "acme"}
    made = jobs_client.post("jobs/bulk", {"batch": {"then": last}, "jobs": [body] * 3}, expected=202)
    done = jobs_client.wait(made["batch"]["then"])
    ended = max(jobs_client.wait(uid)["finished_at"] for uid in made["ids"])
    assert done["started_at"] >= ended


def test_a_recurring_job_is_submitted_once_per_tick(jobs_client: JobsClient) -> None:
    ticks = jobs_client.scratch / "ticks"
    wait_until(ticks.exists, 90)
    starts = [float(line.split()[2]) for line in ticks.read_text().splitlines()]
    minutes = Tally(int(at // 60) for at in starts)
    assert set(minutes.values()) == {1}, starts
