"""Queues as callers see them: submitting, refusals, job types, batches, events, callbacks, figures (C1 C2 C4 C9 C10 C15 C16)."""

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

from tests.acceptance.counter import Counter
from tests.acceptance.test_front import Ears
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


# C1: a job and its id at once


def test_c1_a_job_with_all_that_can_be_said_of_it(counter: Counter) -> None:
    asked = {
        "type": "t.echo", "queue": "batch", "priority": "high", "payload": {"text": "hi", "password": "hush"},
        "project": "acme", "user": "u-17", "delay": 0.2, "cost": {"tokens": 900}, "max_attempts": 4, "timeout": 60,
        "keys": {"chat": "-100123"}, "delivery": "at_least_once",
    }  # fmt: skip
    answer = counter.call("POST", "jobs", asked)
    assert answer.status_code == 202
    made = answer.json()
    assert answer.headers["location"] == f"/api/v1/jobs/{made['id']}"
    assert made["status"] == "pending"
    job = counter.wait(made["id"])
    for name in ("type", "queue", "project", "user", "keys", "max_attempts", "timeout", "delivery"):
        assert job[name] == asked[name], name
    assert (job["priority"], job["cost"]) == (1, {"tokens": 900, "requests": 1})
    assert job["payload"] == {"text": "hi", "password": "[redacted]"}
    assert job["result"] == {"text": "hi", "attempt": 1}


def test_c1_thousands_in_one_call(counter: Counter) -> None:
    ids = counter.jobs(3000, batch={"name": "thousands"})
    assert len(set(ids)) == 3000
    counter.wait(ids[0], ids[-1], seconds=90)
    batch = counter.look(ids[0])["batch"]
    wait_until(lambda: counter.get(f"batches/{batch}")["totals"]["completed"] == 3000, 90)


def test_c1_fifty_equal_posts_with_one_key_are_one_job(counter: Counter) -> None:
    body = {"type": "t.mark", "queue": "batch", "project": "acme", "payload": {"name": "fifty"}}

    def one(_: int) -> tuple[int, str]:
        with counter.place.instance.client() as http:
            answer = http.post("/api/v1/jobs", json=body, headers={"Idempotency-Key": "fifty"})
            return answer.status_code, answer.json()["id"]

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(one, range(50)))
    assert Tally(status for status, _ in answers) == {202: 1, 200: 49}
    (uid,) = {uid for _, uid in answers}
    counter.wait(uid)
    key = {"Idempotency-Key": "fifty"}
    assert counter.post("jobs", body, **key)["status"] == "completed", "after completion, too"
    counter.post("jobs", {**body, "priority": "low"}, expected=409, **key)
    assert len((counter.scratch / "fifty").read_text().splitlines()) == 1


# C2: queues as data


def test_c2_the_seven_defaults_and_queues_of_ones_own(counter: Counter) -> None:
    queues = {row["name"]: row for row in counter.get("queues")["results"]}
    defaults = {"embeddings", "agent_tasks", "exports", "batch", "notifications", "cleanup", "health_checks"}
    assert defaults <= queues.keys()
    for name in defaults:
        assert queues[name]["max_size"] > 0 and queues[name]["timeout"] > 0 and queues[name]["retry_policy"]
    assert (queues["small"]["max_size"], queues["pair"]["concurrency"]) == (5, 2)
    changed = "version: 1\nqueues: [{name: changing, max_size: 7, concurrency: 3, lane: cpu, timeout: 5s, pool: llm, priority_levels: 3}]\n"
    counter.place.instance.manage("apply", "-", stdin=changed)
    row = counter.get("queues/changing")
    assert [row[name] for name in ("max_size", "concurrency", "lane", "timeout", "pool")] == [7, 3, "cpu", 5.0, "llm"]
    assert counter.look(counter.job(queue="changing", priority=3, delay=3600))["priority"] == 1, "of three levels"


# C4: full queues


def test_c4_a_full_queue_says_so_and_drops_nothing(counter: Counter) -> None:
    counter.steer("small", "pause")
    body = {"type": "t.echo", "queue": "small", "project": "acme"}

    def one(_: int) -> tuple[int, Any, Any]:
        with counter.place.instance.client() as http:
            answer = http.post("/api/v1/jobs", json=body)
            return answer.status_code, answer.headers.get("retry-after"), answer.json()

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(one, range(40)))
    accepted = [told["id"] for status, _, told in answers if status == 202]
    refused = [(after, told) for status, after, told in answers if status == 429]
    assert (len(accepted), len(refused)) == (5, 35)
    assert all(int(after) >= 1 and told["type"] == "/problems/queue-full" for after, told in refused)
    many = {"jobs": [body] * 6}
    assert counter.post("jobs/bulk", many, expected=422)["type"] == "/problems/queue-too-small"
    counter.post("jobs/bulk", {"jobs": [body] * 2}, expected=429)
    counter.steer("small", "resume")
    counter.wait(*accepted)
    assert len(counter.get("jobs?queue=small")["results"]) == 5, "all or nothing"


# C9: job types


def test_c9_a_call_through_a_pool_needs_no_code(counter: Counter) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 5}
    payload = {"pool": "llm", "method": "POST", "path": "/v1/chat/completions", "json": body}
    job = counter.wait(counter.job("http.request", payload=payload))
    assert job["result"]["status"] == 200 and job["result"]["body"]["object"] == "chat.completion"
    assert [attempt["account"] for attempt in job["attempts"]] == ["llm/a1"]


def test_c9_functions_plain_and_async(counter: Counter) -> None:
    assert counter.wait(counter.job("t.asleep", payload={"text": "x"}))["result"] == "x"


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
def test_c9_what_no_worker_could_run_is_refused_at_the_door(counter: Counter, fields: Any, pointer: str) -> None:
    told = counter.post("jobs", {"type": "t.echo", "queue": "batch", "project": "acme", **fields}, expected=400)
    assert told["errors"][0]["pointer"] == pointer


def test_c9_django_s_own_tasks(counter: Counter) -> None:
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
        [sys.executable, "-c", script], cwd=BASE_DIR, env=counter.place.instance.environ, capture_output=True, text=True
    )
    assert done.stdout.split() == ["5", "FAILED", "builtins.ZeroDivisionError"], done.stdout + done.stderr


# C10: following


def test_c10_lists_with_filters_in_pages(counter: Counter) -> None:
    ids = counter.jobs(7, user="lister", priority=2)
    counter.wait(*ids)
    seen: list[str] = []
    cursor = ""
    while True:
        page = counter.get(f"jobs?q=lister&status=completed&queue=batch&type=t.echo&limit=3{cursor}")
        seen += [row["id"] for row in page["results"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert seen == ids[::-1], "newest first, each once"
    assert counter.call("GET", "jobs?status=wrong").status_code == 400
    batch = counter.look(ids[0])["batch"]
    assert len(counter.get(f"jobs?batch={batch}")["results"]) == 7
    assert counter.get("queue/requests?limit=5")["results"][0]["id"]


def test_c10_a_batch_tells_how_far_it_is_and_when_it_will_be_done(counter: Counter) -> None:
    ids = counter.jobs(30, "t.sleep", batch={"name": "progress"}, queue="pair", payload={"seconds": 0.3})
    uid = counter.look(ids[0])["batch"]
    wait_until(lambda: counter.get(f"batches/{uid}")["totals"]["completed"] >= 4, 60)
    batch = counter.get(f"batches/{uid}")
    assert batch["total"] == sum(batch["totals"].values()) == 30
    assert batch["rate"] > 0 and batch["eta"].endswith("Z")
    told = counter.get(f"jobs/{ids[-1]}/explain")
    assert told["ahead"] >= 1 and told["waits_for"]
    wait_until(lambda: counter.get(f"batches/{uid}")["finished_at"], 60)


def test_c10_live_events_with_what_was_missed(counter: Counter) -> None:
    ears = Ears(counter.place.instance)
    uid = counter.job()
    wait_until(lambda: ears.names(job=uid)[-1:] == ["job.completed"], 30)
    assert ears.names(job=uid) == ["job.executing", "job.completed"]
    first = next(event_id for event_id, _, told in ears.heard if told["data"].get("job") == uid)
    with (
        counter.place.instance.client() as http,
        http.stream("GET", "/api/v1/events", headers={"Last-Event-ID": first}, timeout=20) as answer,
    ):
        missed = []
        for line in answer.iter_lines():
            if line.startswith("data: "):
                missed.append(json.loads(line.removeprefix("data: ")))
                if missed[-1]["data"].get("job") == uid:
                    break
    assert missed[-1]["event"] == "job.completed", "what came behind the last one that was heard"


def test_c10_signed_callbacks_for_a_job_and_a_batch(counter: Counter, receiver: Receiver) -> None:
    secret = counter.place.instance.manage("webhook_secret", "acme").stdout.split()[-1]
    uid = counter.job(callback_url=receiver.url)
    counter.jobs(2, batch={"name": "told", "callback_url": receiver.url})
    wait_until(lambda: len(receiver.got) == 2, 30)
    told = {}
    for headers, body in receiver.got:
        key = base64.b64decode(secret.removeprefix("whsec_"))
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        assert headers["webhook-signature"] == f"v1,{expected}"
        told[json.loads(body)["type"]] = json.loads(body)["data"]
    assert told["job.completed"]["id"] == uid
    assert told["batch.completed"]["totals"]["completed"] == 2


# C15: figures


def test_c15_depth_age_rates_waits_and_shares(counter: Counter) -> None:
    counter.steer("parked", "pause")
    for priority, count in (("high", 1), ("normal", 2), ("low", 3)):
        counter.jobs(count, queue="parked", priority=priority)
    row = counter.get("queues/parked")
    assert (row["state"], row["waiting"], row["by_priority"]) == ("paused", 6, {"high": 1, "normal": 2, "low": 3})
    assert row["oldest_age"] > 0 and row["rate_in"] > 0
    stats = counter.get("queue/stats")
    assert {"high", "normal", "low", "retry", "dlq"} == set(stats["stats"])
    assert stats["total_queued"] >= 6
    counter.steer("parked", "resume")
    wait_until(lambda: counter.get("queues/parked")["waiting"] == 0, 30)
    wait_until(lambda: counter.get("queues/parked")["success_rate"] == 1.0, 30)
    row = counter.get("queues/parked")
    assert row["rate_out"] > 0 and row["wait"]["p95"] >= row["wait"]["p50"] > 0 and row["run"]["p50"] >= 0
    status = counter.get("queue/status")
    assert status["max_concurrent"] >= 50 and status["completed"] >= 6
    workers = counter.get("workers")["results"]
    assert {"io", "cpu"} <= {lane for one in workers for lane in one["queues"]}
    wait_until(lambda: sum(one["jobs_done"] for one in counter.get("workers")["results"]) >= 6, 30)
    metrics = counter.http.get("/metrics").text
    assert 'sluice_queue_depth{priority="high",queue="parked"} 0.0' in metrics


# C16: dependencies, uniqueness, what follows a batch, recurring jobs


def test_c16_a_job_waits_for_others_and_falls_with_them(counter: Counter) -> None:
    first = counter.job("t.sleep", payload={"seconds": 0.5})
    second = counter.job(after=[first])
    assert first in counter.get(f"jobs/{second}/explain")["waits_for"]
    counter.wait(first, second)
    assert counter.order(first, second) == [first, second]
    bad = counter.job("t.fail", payload={"category": "validation"})
    falls = counter.job(after=[bad])
    assert bad in counter.wait(falls, status="cancelled")["reason"]


def test_c16_a_twin_is_answered_instead_of_a_second_job(counter: Counter) -> None:
    body = {"type": "t.sleep", "queue": "batch", "project": "acme", "payload": {"seconds": 1.0}, "unique_for": 60}
    first = counter.post("jobs", body, expected=202)["id"]
    assert counter.post("jobs", body, expected=200)["id"] == first
    counter.wait(first)
    assert counter.post("jobs", body, expected=202)["id"] != first, "the first one has ended"


def test_c16_a_job_follows_a_batch(counter: Counter) -> None:
    body = {"type": "t.sleep", "queue": "batch", "project": "acme", "payload": {"seconds": 0.3}}
    last = {"type": "t.echo", "queue": "batch", "project": "acme"}
    made = counter.post("jobs/bulk", {"batch": {"then": last}, "jobs": [body] * 3}, expected=202)
    done = counter.wait(made["batch"]["then"])
    ended = max(counter.wait(uid)["finished_at"] for uid in made["ids"])
    assert done["started_at"] >= ended


def test_c16_a_recurring_job_comes_once_per_tick(counter: Counter) -> None:
    ticks = counter.scratch / "ticks"
    wait_until(ticks.exists, 90)
    starts = [float(line.split()[2]) for line in ticks.read_text().splitlines()]
    minutes = Tally(int(at // 60) for at in starts)
    assert set(minutes.values()) == {1}, starts
