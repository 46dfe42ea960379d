"""Jobs, batches, queues and dead letters over REST: shapes, scopes, isolation, bad input, pages."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from queues.errors import CATEGORIES
from queues.models import BulkAction, Callback, DeadLetter, Job, Queue
from queues.services import bulk_actions
from queues.states import Status
from quotas import clock
from quotas.models import ApiKey, Project
from quotas.services import api_keys
from tests.integration.queues.desk import Desk, failed, fresh
from tests.integration.quotas.api.conftest import Api

ALL = ("check", "submit", "read", "operate", "admin")
PROBLEM = "application/problem+json"


def api(*scopes: str, project: str | None = None) -> Api:
    bound = Project.objects.get_or_create(slug=project, defaults={"name": project})[0] if project else None
    Desk.renew_configuration()
    return Api(api_keys.create("test", scopes or ALL, project=bound, actor="test")[1])


@pytest.fixture
def platform(desk: Desk) -> Api:
    desk.project("a")
    desk.project("b")
    return api()


def body(**fields: Any) -> dict[str, Any]:
    return {"type": "test.echo", "project": "a", **fields}


def kill(desk: Desk, count: int = 1, project: str = "a", category: str = "code", **fields: Any) -> list[DeadLetter]:
    """Jobs that died."""
    jobs = desk.submit(count, project=project, max_attempts=1, **fields)
    worker = desk.worker(f"k-{project}-{category}", places=1000)
    while worker.settle((desk.cycle(), worker.claim())[1], failed(category, "it broke")):
        pass
    return list(DeadLetter.objects.filter(job__in=jobs).order_by("pk"))


# Jobs


def test_a_job_from_its_submission_to_its_result(desk: Desk, platform: Api) -> None:
    answer = platform.post(
        "jobs", body(payload={"x": 1}, priority="high", keys={"chat": "1"}, user="u", cost={"tokens": 5})
    )
    assert answer.status_code == 202
    made = answer.json()
    assert answer["Location"] == f"/api/v1/jobs/{made['id']}"
    assert (made["status"], made["priority"], made["cost"]) == ("pending", 1, {"requests": 1, "tokens": 5})
    worker = desk.worker()
    desk.run_until_done(worker)
    done = platform.get(f"jobs/{made['id']}").json()
    assert (done["status"], done["result"], done["error"], done["dead_letter"]) == (
        "completed",
        {"attempt": 1, "x": 1},
        None,
        None,
    )
    (attempt,) = done["attempts"]
    assert {"number", "outcome", "category", "account", "status", "error", "started_at", "ended_at"} <= set(attempt)
    assert (attempt["number"], attempt["outcome"]) == (1, "succeeded")
    steps = platform.get(f"jobs/{made['id']}/timeline").json()["results"]
    assert [step["state"] for step in steps] == ["pending", "executing", "completed"]
    assert all(set(step) == {"at", "state", "reason"} and step["at"].endswith("Z") for step in steps)
    explanation = platform.get(f"jobs/{made['id']}/explain").json()
    assert {"status", "waits_for", "until", "estimated_start"} <= set(explanation)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"timeout": 30, "delay": 60, "max_attempts": 2, "delivery": "at_most_once", "priority": 3, "cost": {"tokens": 7}},
        {"run_at": "2031-01-02T03:04:05.678901+02:00", "keys": {"b": "2", "a": "1"}, "user": "ünï", "payload": {"a": [1.0]}},
        {"unique_for": 60, "unique_key": "u", "idempotency_key": "k", "callback_url": "https://93.184.215.14/x"},
        {"queue": "llm"},
        {"after": True},
        {"after": True, "batch": True},
    ],
)  # fmt: skip
def test_a_submission_is_answered_as_a_later_reading(desk: Desk, platform: Api, fields: dict[str, Any]) -> None:
    desk.queue("llm", concurrency=0)
    if fields.get("after"):
        fields = fields | {"after": [platform.post("jobs", body()).json()["id"]]}
    if fields.get("batch"):
        bulk = {"batch": {"open": True}, "jobs": [body()]}
        fields = fields | {"batch": platform.post("jobs/bulk", bulk).json()["batch"]["id"]}
    answer = platform.post("jobs", body(**fields))
    assert answer.status_code == 202, answer.content
    assert answer.content == platform.get(f"jobs/{answer.json()['id']}").content


def test_the_idempotency_key_in_header_or_body(platform: Api) -> None:
    first = platform.post("jobs", body(payload={"x": 1}), Idempotency_Key="k")
    again = platform.post("jobs", body(payload={"x": 1}, idempotency_key="k"))
    other = platform.post("jobs", body(payload={"x": 2}), Idempotency_Key="k")
    unlike = platform.post("jobs", body(idempotency_key="k"), Idempotency_Key="l")
    assert [answer.status_code for answer in (first, again, other, unlike)] == [202, 200, 409, 400]
    assert first.json()["id"] == again.json()["id"]
    assert other.json()["type"] == "/problems/idempotency-conflict"
    assert Job.objects.count() == 1


def test_full_too_small_draining(desk: Desk, platform: Api) -> None:
    queue = desk.queue("q", max_size=2)
    assert platform.post("jobs/bulk", {"jobs": [body(queue="q")] * 3}).status_code == 422
    assert platform.post("jobs/bulk", {"jobs": [body(queue="q")] * 2}).status_code == 202
    full = platform.post("jobs", body(queue="q"))
    assert (full.status_code, full.json()["type"]) == (429, "/problems/queue-full")
    assert int(full["Retry-After"]) >= 1
    assert platform.post("queues/q/drain", {"reason": "r"}).json()["state"] == "draining"
    draining = platform.post("jobs", body(queue="q"))
    assert (draining.status_code, draining.json()["type"]) == (503, "/problems/queue-draining")
    assert int(draining["Retry-After"]) >= 1
    assert Queue.objects.get(pk=queue.pk).draining_at


def test_cancel_and_retry(desk: Desk, platform: Api) -> None:
    uid = platform.post("jobs", body()).json()["id"]
    assert platform.post(f"jobs/{uid}/cancel", {"reason": "r"}).json()["status"] == "cancelled"
    assert platform.post(f"jobs/{uid}/cancel").status_code == 409
    assert platform.post(f"jobs/{uid}/retry").status_code == 409
    (letter,) = kill(desk)
    answer = platform.post(f"jobs/{letter.job.uid}/retry")
    assert (answer.status_code, answer.json()["status"], answer.json()["id"]) == (200, "pending", letter.job.uid)


# Bulk and batches


def test_bulk_and_batch(desk: Desk, platform: Api) -> None:
    answer = platform.post(
        "jobs/bulk", {"batch": {"name": "n", "open": True}, "jobs": [body(payload={"n": n}) for n in range(3)]}
    )
    assert answer.status_code == 202
    made = answer.json()
    assert set(made) == {"batch", "ids"}
    uid = made["batch"]["id"]
    assert {"id", "name", "total", "totals", "rate", "eta", "binding"} <= set(made["batch"])
    assert (made["batch"]["total"], made["batch"]["totals"]["pending"], len(made["ids"])) == (3, 3, 3)
    assert platform.post("jobs/bulk", {"batch": {"id": uid}, "jobs": [body()]}).json()["batch"]["total"] == 4
    assert platform.post("jobs", body(batch=uid)).status_code == 202
    desk.run_until_done(desk.worker())
    assert platform.get(f"batches/{uid}").json()["finished_at"] is None
    sealed = platform.post(f"batches/{uid}/seal").json()
    assert (sealed["open"], sealed["totals"]["completed"], sealed["finished_at"] is None) == (False, 5, False)
    assert platform.post("jobs", body(batch=uid)).status_code == 409


def test_a_sealed_batch_takes_no_more_though_its_jobs_go_on(desk: Desk, platform: Api) -> None:
    open_one = {"batch": {"open": True}, "jobs": [body()]}
    uid = platform.post("jobs/bulk", open_one).json()["batch"]["id"]
    more = {"batch": {"id": uid}, "jobs": [body()] * 2}
    grown = platform.post("jobs/bulk", more, Idempotency_Key="g")
    platform.post(f"batches/{uid}/seal")
    assert platform.post("jobs/bulk", {"batch": {"id": uid}, "jobs": [body()]}).status_code == 409
    assert platform.post("jobs", body(batch=uid)).status_code == 409
    again = platform.post("jobs/bulk", more, Idempotency_Key="g")
    assert (grown.status_code, again.status_code) == (202, 200), "what was accepted is answered alike for ever"
    assert again.json()["ids"] == grown.json()["ids"]
    assert Job.objects.count() == 3


def test_a_repeated_bulk_is_answered_alike_though_its_batch_has_grown(desk: Desk, platform: Api) -> None:
    twice = {"batch": {"open": True}, "jobs": [body(payload={"n": n}) for n in range(2)]}
    first = platform.post("jobs/bulk", twice, Idempotency_Key="k")
    platform.post("jobs/bulk", {"batch": {"id": first.json()["batch"]["id"]}, "jobs": [body()]})
    second = platform.post("jobs/bulk", twice, Idempotency_Key="k")
    assert (first.status_code, second.status_code) == (202, 200)
    assert second.json()["ids"] == first.json()["ids"]


def test_a_batch_of_jobs_that_were_accepted_before_is_complete(desk: Desk, platform: Api) -> None:
    """Nothing of it will ever end, so that nothing would ever start what follows it."""
    known = body(idempotency_key="once")
    single = platform.post("jobs", known).json()["id"]
    made = platform.post(
        "jobs/bulk",
        {"batch": {"then": body(payload={"n": "last"}), "callback_url": "http://127.0.0.1:9/"}, "jobs": [known, known]},
    ).json()
    assert (made["ids"], made["batch"]["total"]) == ([single] * 2, 0)
    assert made["batch"]["finished_at"] is not None
    assert Callback.objects.count() == 1
    desk.run_until_done(desk.worker())
    assert platform.get(f"jobs/{made['batch']['then']}").json()["status"] == "completed"


def test_what_belongs_to_a_new_batch_is_not_passed_over(desk: Desk, platform: Api) -> None:
    uid = platform.post("jobs/bulk", {"batch": {"name": None, "callback_url": None}, "jobs": [body()]}).json()["batch"][
        "id"
    ]
    for member in ({"name": "x"}, {"callback_url": "http://127.0.0.1:9/"}, {"then": body()}):
        answer = platform.post("jobs/bulk", {"batch": {"id": uid, **member}, "jobs": [body()]})
        assert answer.status_code == 400
        assert answer.json()["errors"][0]["pointer"] == f"#/batch/{next(iter(member))}"
    kept_open = platform.post("jobs/bulk", {"batch": {"id": uid, "open": True}, "jobs": [body()]})
    assert (kept_open.status_code, kept_open.json()["batch"]["open"]) == (202, True)
    assert platform.post("jobs/bulk", {"batch": None, "jobs": [body()]}).status_code == 202


def test_a_job_that_follows_its_batch(desk: Desk, platform: Api) -> None:
    made = platform.post("jobs/bulk", {"batch": {"then": body(payload={"n": "last"})}, "jobs": [body()]}).json()
    last = made["batch"]["then"]
    assert platform.get(f"jobs/{last}").json()["status"] == "pending"
    assert "to be complete" in platform.get(f"jobs/{last}/explain").json()["waits_for"]
    desk.run_until_done(desk.worker())
    assert platform.get(f"jobs/{last}").json()["status"] == "completed"
    assert platform.get(f"batches/{made['batch']['id']}").json()["then"] == last
    for then, pointer in [
        (body(after=[last]), "#/batch/then/after"),
        (body(nonsense=1), "#/batch/then/nonsense"),
        ([], "#/batch/then"),
        (body(type="nobody"), "#/batch/then/type"),
    ]:
        answer = platform.post("jobs/bulk", {"batch": {"then": then}, "jobs": [body()]})
        assert answer.status_code == 400, answer.json()
        assert answer.json()["errors"][0]["pointer"].startswith(pointer), answer.json()
    grown = platform.post("jobs/bulk", {"batch": {"id": made["batch"]["id"], "then": body()}, "jobs": [body()]})
    assert grown.status_code == 400


@pytest.mark.parametrize(
    ("sent", "pointer"),
    [
        ({}, "#/jobs"), ({"jobs": []}, "#/jobs"), ({"jobs": {}}, "#/jobs"), ({"jobs": [3]}, "#/jobs/0"),
        ({"jobs": [body()], "x": 1}, "#/x"), ({"jobs": [body()], "batch": 3}, "#/batch"),
        ({"jobs": [body()], "batch": {"x": 1}}, "#/batch/x"), ({"jobs": [body()], "batch": {"open": "yes"}}, "#/batch/open"),
        ({"jobs": [body()], "batch": {"id": "nobody"}}, "#/batch/id"),
        ({"jobs": [body()], "batch": {"callback_url": "ftp://x"}}, "#/batch/callback_url"),
        ({"jobs": [body(), body(delay=-1)]}, "#/jobs/1/delay"), ({"jobs": [body(), body(queue="no")]}, "#/jobs/1/queue"),
        ({"jobs": [body(batch="x")]}, "#/jobs/0/batch"), ({"jobs": [body(), body(project="b")]}, "#/jobs"),
    ],
)  # fmt: skip
def test_a_bad_bulk_is_refused_whole(platform: Api, sent: Any, pointer: str) -> None:
    answer = platform.post("jobs/bulk", sent)
    assert (answer.status_code, answer["Content-Type"]) == (400, PROBLEM)
    assert pointer in [error["pointer"] for error in answer.json()["errors"]]
    assert not Job.objects.exists()


def test_more_than_ten_thousand_are_refused(platform: Api) -> None:
    assert platform.post("jobs/bulk", {"jobs": [body()] * 10_001}).status_code == 400
    assert not Job.objects.exists()


# Bad input


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"", 400), (b"{", 400), (b"[]", 400), (b'{"type": NaN}', 400), (b'{"a": 1, "a": 2}', 400), (b"\xff", 400),
        (body(x=1), 400), (body(delay=-1), 400), (body(type="nobody"), 400), (body(queue="nobody"), 400),
        (b'{"type": "test.echo", "project": "a", "delay": 1' + b"0" * 399 + b"}", 400),
        (b'{"type": "test.echo", "project": "a", "payload": {"a": 1e999}}', 400),
        (b'{"type": "test.echo", "project": "a", "payload": ' + b'{"a":' * 500 + b"1" + b"}" * 500 + b"}", 400),
        (body(run_at="9999-12-31T23:59:59-23:00"), 400), (body(project="nobody"), 404), ({"type": "test.echo"}, 400),
        (body(callback_url="http://10.0.0.1/"), 400), (body(callback_url="file:///etc/passwd"), 400),
        (body(callback_url="http://u:p@x.example/"), 400), (body(callback_url="http://[::ffff:10.0.0.1]/"), 400),
        (body(type="http.request", payload={"path": "http://evil/", "pool": "x"}), 400),
        (body(cost={"tokens": -1}), 400), (body(after=["nobody"]), 400), (body(type="test.secret"), 400),
    ],
)  # fmt: skip
def test_bad_jobs_are_refused_and_nothing_is_changed(platform: Api, sent: Any, status: int) -> None:
    answer = platform.post("jobs", sent)
    assert (answer.status_code, answer["Content-Type"]) == (status, PROBLEM), answer.content
    problem = answer.json()
    assert {"type", "title", "status", "detail"} <= set(problem)
    assert problem["type"].startswith("/problems/")
    assert not Job.objects.exists()


@pytest.mark.parametrize(
    "path",
    [
        "jobs?limit=0", "jobs?limit=501", "jobs?limit=x", "jobs?status=failed", "jobs?nonsense=1", "jobs?cursor=%21",
        "jobs?cursor=abc", "jobs?created_after=yesterday", "jobs?status=dead&status=pending", "dead-letters?severity=bad",
        "jobs?created_after=9999-12-31T23:59:59-23:00",
        "dead-letters?x=1", "queue/requests?limit=-1", "queue/status?x=1", "queues?x=1", "workers?x=1",
        "dead-letters/groups?cursor=x", "queues?limit=0", "workers?limit=501", "dead-letters?category=bad",
    ],
)  # fmt: skip
def test_bad_queries_are_refused(platform: Api, path: str) -> None:
    answer = platform.get(path)
    assert (answer.status_code, answer["Content-Type"]) == (400, PROBLEM)


@pytest.mark.parametrize(
    "path",
    ["jobs/nobody", "jobs/nobody/timeline", "jobs/nobody/explain", "batches/nobody", "queues/nobody", "dead-letters/nobody",
     "dead-letters/actions/nobody", "jobs/%00", "jobs?project=nobody"],
)  # fmt: skip
def test_what_is_not_there_is_404(platform: Api, path: str) -> None:
    answer = platform.get(path)
    assert (answer.status_code, answer["Content-Type"]) == (404, PROBLEM)


# Scopes

READS = ["jobs", "jobs/{job}", "jobs/{job}/timeline", "jobs/{job}/explain", "batches/{batch}", "queues", "queues/batch",
         "queue/status", "queue/stats", "queue/requests", "dead-letters", "dead-letters/groups", "dead-letters/{letter}", "workers"]  # fmt: skip
WRITES = {
    "jobs": ("submit", body()), "jobs/bulk": ("submit", {"jobs": [body()]}), "jobs/{job}/cancel": ("submit", {}),
    "jobs/{dead}/retry": ("operate", {}), "batches/{batch}/seal": ("submit", {}),
    "queues/batch/pause": ("operate", {"reason": "r"}), "queues/batch/resume": ("operate", {"reason": "r"}),
    "queues/batch/drain": ("operate", {"reason": "r"}), "dead-letters/{letter}/replay": ("operate", {}),
    "dead-letters/{letter}/discard": ("operate", {}),
    "dead-letters/replay": ("operate", {"filter": {"category": "code"}, "reason": "r"}),
}  # fmt: skip


@pytest.fixture
def things(desk: Desk) -> dict[str, str]:
    (letter,) = kill(desk)
    from queues.services.batches import submit_bulk
    from queues.specs import read_job

    batch, ids, _ = submit_bulk(desk.project("a"), [read_job({"type": "test.echo"})])
    return {"job": ids[0], "batch": batch.uid, "letter": letter.uid, "dead": letter.job.uid}


@pytest.mark.parametrize("path", READS)
def test_reading_needs_its_scope(things: dict[str, str], path: str) -> None:
    assert api("read").get(path.format(**things)).status_code == 200
    refused = api("check", "submit", "operate").get(path.format(**things))
    assert (refused.status_code, refused["Content-Type"]) == (403, PROBLEM)
    assert Client().get(f"/api/v1/{path.format(**things)}").status_code == 401


@pytest.mark.parametrize("path", WRITES)
def test_writing_needs_its_scope(things: dict[str, str], path: str) -> None:
    scope, sent = WRITES[path]
    before = list(Job.objects.order_by("pk").values())
    refused = api(*(set(ALL) - {scope})).post(path.format(**things), sent)
    assert (refused.status_code, refused["Content-Type"]) == (403, PROBLEM)
    assert list(Job.objects.order_by("pk").values()) == before
    assert api(scope).post(path.format(**things), sent).status_code in (200, 202)


# Isolation


def test_a_project_s_key_sees_its_own_only(desk: Desk, things: dict[str, str]) -> None:
    other = api(project="b")
    mine = other.post("jobs", {"type": "test.echo"}).json()["id"]
    for path in READS:
        if "{" in path:
            assert other.get(path.format(**things)).status_code == 404, path
    for path, (_, sent) in WRITES.items():
        if "{" in path:
            assert other.post(path.format(**things), sent).status_code == 404, path
    assert [row["id"] for row in other.get("jobs").json()["results"]] == [mine]
    assert [row["id"] for row in other.get("queue/requests").json()["results"]] == [mine]
    assert other.get("jobs", batch=things["batch"]).json()["results"] == []
    assert other.get("jobs", project="a").status_code == 404
    assert other.get("dead-letters").json()["results"] == other.get("dead-letters/groups").json()["results"] == []
    assert other.get("dead-letters", project="a").status_code == 404
    status, stats = other.get("queue/status").json(), other.get("queue/stats").json()
    assert (status["queue_size"], status["total_requests"], status["failed"]) == (1, 1, 0)
    assert (stats["total_queued"], stats["total_failed"], stats["stats"]["dlq"]) == (1, 0, 0)
    queue = other.get("queues/batch").json()
    assert (queue["waiting"], queue["dead_letters"]) == (1, 0)
    assert other.post("jobs", body()).status_code == 404
    assert other.post("jobs", {"type": "test.echo", "after": [things["job"]]}).status_code == 400
    assert other.post("jobs", {"type": "test.echo", "batch": things["batch"]}).status_code == 400
    assert other.post("dead-letters/replay", {"filter": {"project": "a"}, "reason": "r"}).status_code == 404
    dry = other.post("dead-letters/replay", {"filter": {"category": "code"}, "reason": "r", "dry_run": True})
    assert dry.json()["total"] == 0
    for verb in ("pause", "resume", "drain"):
        assert other.post(f"queues/batch/{verb}", {"reason": "r"}).status_code == 403
    mine_of_a = api(project="a")
    assert mine_of_a.get(f"jobs/{things['job']}").status_code == 200
    assert mine_of_a.get(f"jobs/{mine}").status_code == 404


def test_members_that_a_type_hides_are_shown_nowhere(desk: Desk, platform: Api) -> None:
    uid = platform.post("jobs", body(type="test.secret", payload={"token": "hush-hush", "city": "Ulm"})).json()["id"]
    for path in (f"jobs/{uid}", "jobs", f"jobs/{uid}/explain", f"jobs/{uid}/timeline", "queue/requests"):
        assert b"hush-hush" not in platform.get(path).content
    assert platform.get(f"jobs/{uid}").json()["payload"] == {"token": "[redacted]", "city": "Ulm"}


# Lists


@pytest.mark.parametrize("path", ["jobs", "queue/requests"])
def test_pages_are_complete_and_without_doubles_while_rows_are_added(desk: Desk, platform: Api, path: str) -> None:
    before = {job.uid for job in desk.submit(57, project="a")}
    seen: list[str] = []
    cursor = None
    while True:
        page = platform.get(path, limit=10, **({"cursor": cursor} if cursor else {})).json()
        seen += [row["id"] for row in page["results"]]
        desk.submit(3, project="a")
        cursor = page["next"]
        if cursor is None:
            break
    assert len(seen) == len(set(seen))
    assert set(seen) == before
    rows = Job.objects.in_bulk(seen, field_name="uid")
    assert [rows[uid].pk for uid in seen] == sorted((row.pk for row in rows.values()), reverse=True)


def test_pages_of_dead_letters(desk: Desk, platform: Api) -> None:
    letters = kill(desk, 23)
    seen, cursor = [], None
    while not seen or cursor:
        page = platform.get("dead-letters", limit=5, **({"cursor": cursor} if cursor else {})).json()
        seen += [row["id"] for row in page["results"]]
        cursor = page["next"]
        kill(desk)
    assert sorted(seen) == sorted(letter.uid for letter in letters)


def test_filters(desk: Desk, platform: Api) -> None:
    desk.submit(2, project="a", priority=1)
    (other,) = desk.submit(project="b", queue="exports", user="u-1")
    count = lambda **query: len(platform.get("jobs", **query).json()["results"])  # noqa: E731
    assert (count(), count(project="a"), count(queue="exports"), count(type="test.echo"), count(type="x")) == (
        3,
        2,
        1,
        3,
        0,
    )
    assert (count(status="pending"), count(status="dead"), count(q="u-1"), count(q=other.uid)) == (3, 0, 1, 1)
    assert count(created_after=other.created_at.isoformat()) == 0
    assert count(created_after="2020-01-01T00:00:00Z") == 3


# Queues


def test_queue_rows_and_statistics(desk: Desk, platform: Api) -> None:
    desk.submit(2, project="a", priority="high")
    desk.submit(3, project="a", priority="low")
    kill(desk)
    row = platform.get("queues/batch").json()
    assert {
        "name",
        "state",
        "reason",
        "max_size",
        "concurrency",
        "lane",
        "pool",
        "waiting",
        "oldest_age",
        "rate_in",
    } <= set(row)
    names = {row["name"] for row in platform.get("queues").json()["results"]}
    assert {"embeddings", "agent_tasks", "exports", "batch", "notifications", "cleanup", "health_checks"} <= names
    status = platform.get("queue/status").json()
    assert {
        "queue_size",
        "active_requests",
        "max_concurrent",
        "total_requests",
        "completed",
        "failed",
        "queues",
    } == set(status)
    assert (status["total_requests"], status["failed"], status["queue_size"]) == (6, 6, 0)
    stats = platform.get("queue/stats").json()
    assert set(stats) == {"stats", "total_queued", "total_failed", "queues"}
    assert set(stats["stats"]) == {"high", "normal", "low", "retry", "dlq"}
    assert stats["stats"]["dlq"] == DeadLetter.objects.count()


def test_how_it_went(desk: Desk, platform: Api) -> None:
    """Waiting and running times, shares of success and failure, for a queue and for each worker."""
    assert platform.get("queues/batch").json()["wait"] is None
    desk.submit(4, project="a")
    worker = desk.worker("w9")
    desk.skip(3)
    worker.beat()
    desk.cycle()
    claimed = worker.claim()
    desk.skip(2)
    worker.settle(claimed[:3])
    worker.settle(claimed[3:], failed("code"))
    worker.report.done, worker.report.failed = 4, 1
    worker.beat()
    row = platform.get("queues/batch").json()
    assert (row["success_rate"], row["failure_rate"]) == (0.75, 0.25)
    assert 3.0 <= row["wait"]["p50"] <= row["wait"]["p95"] < 60.0
    assert 2.0 <= row["run"]["p50"] < 60.0
    assert row["rate_out"] > 0 and row["rate_in"] > 0
    (one,) = platform.get("workers").json()["results"]
    assert (one["success_rate"], one["rate"] > 0) == (0.75, True)
    desk.skip(400)
    assert platform.get("queues/batch").json()["success_rate"] is None


def test_pause_and_resume_are_audited(platform: Api) -> None:
    from controlplane.models import AuditEntry

    assert platform.post("queues/batch/pause", {}).status_code == 400
    assert platform.post("queues/batch/pause", {"reason": "night"}).json()["state"] == "paused"
    assert platform.get("queues/batch").json()["reason"] == "night"
    assert platform.post("queues/batch/resume", {"reason": "day"}).json()["state"] == "running"
    entries = AuditEntry.objects.filter(target="queue:batch").order_by("pk")
    assert [(row.verb, row.reason) for row in entries] == [("queue.pause", "night"), ("queue.resume", "day")]


def test_workers(desk: Desk, platform: Api) -> None:
    desk.worker("w9", places=7)
    (row,) = platform.get("workers").json()["results"]
    assert {"name", "host", "queues", "busy", "jobs_done", "jobs_failed", "last_seen"} <= set(row)
    assert (row["name"], row["state"], row["queues"]) == ("w9", "alive", ["io"])
    desk.skip(60)
    assert platform.get("workers").json()["results"][0]["state"] == "lost"


# Dead letters


def test_replay_one(desk: Desk, platform: Api) -> None:
    (letter,) = kill(desk, payload={"x": 1})
    answer = platform.post(f"dead-letters/{letter.uid}/replay", {"payload": {"x": 2}, "reason": "r"})
    assert (answer.status_code, answer.json()["payload"], answer.json()["status"]) == (200, {"x": 2}, "pending")
    assert platform.post(f"dead-letters/{letter.uid}/replay").status_code == 409
    assert platform.post(f"dead-letters/{letter.uid}/discard").status_code == 409
    worker = desk.worker("w")
    desk.cycle()
    (claimed,) = worker.claim()
    assert (claimed.context.attempt, claimed.context.idempotency_key) == (2, f"{letter.job.uid}-r1")
    worker.run()
    assert (fresh(letter.job).status, fresh(letter.job).attempts_counted) == (Status.COMPLETED, 0)
    assert platform.get(f"dead-letters/{letter.uid}").json()["handled_as"] == "replayed"


def test_an_edited_replay_is_validated(desk: Desk, platform: Api) -> None:
    (letter,) = kill(desk, type="test.secret", payload={"token": "x"})
    answer = platform.post(f"dead-letters/{letter.uid}/replay", {"payload": {"token": 3}})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (400, "#/payload/token")
    assert platform.post(f"dead-letters/{letter.uid}/replay", {"payload": []}).status_code == 400
    assert DeadLetter.objects.get().handled_at is None
    assert fresh(letter.job).status == Status.DEAD


def test_discard(desk: Desk, platform: Api) -> None:
    (letter,) = kill(desk)
    assert platform.post(f"dead-letters/{letter.uid}/discard", {"reason": "r"}).json()["handled_as"] == "discarded"
    assert fresh(letter.job).status == Status.DEAD
    assert platform.get("dead-letters").json()["results"] == []
    assert len(platform.get("dead-letters", handled="true").json()["results"]) == 1


def test_groups(desk: Desk, platform: Api) -> None:
    kill(desk, 3)
    kill(desk, 1, category="server")
    groups = platform.get("dead-letters/groups").json()["results"]
    assert [(group["category"], group["count"]) for group in groups] == [("server", 1), ("code", 3)]
    found = platform.get("dead-letters", fingerprint=groups[1]["fingerprint"]).json()["results"]
    assert len(found) == 3
    assert {"id", "job", "category", "severity", "fingerprint", "error", "attempts", "created_at"} <= set(found[0])


@pytest.mark.parametrize("path", ["queues", "workers", "dead-letters/groups", "dead-letters", "jobs", "queue/requests"])
def test_every_list_comes_page_by_page_while_it_grows(desk: Desk, platform: Api, path: str) -> None:
    def grow(number: int) -> None:
        desk.worker(f"more-{number}")
        desk.queue(f"q{number}")
        kill(desk, category=CATEGORIES[number], type="test.echo")

    for number in range(5):
        grow(number)
    whole = platform.get(path, limit=500).json()
    assert whole["next"] is None
    seen: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        answer = platform.get(path, limit=2, **cursor).json()
        assert len(answer["results"]) <= 2
        seen += answer["results"]
        if answer["next"] is None:
            break
        cursor = {"cursor": answer["next"]}
        if len(seen) == 2:
            grow(5)
            kill(desk, category=CATEGORIES[0])  # one more in a group that is still to come
    name = {"queues": "name", "workers": "name", "dead-letters/groups": "fingerprint"}.get(path, "id")
    assert [row[name] for row in seen] == [row[name] for row in whole["results"]]


def test_a_letter_shows_its_traceback(desk: Desk, platform: Api, type_of: Any) -> None:
    def wrong(job: Any) -> None:
        raise ValueError("what went wrong")

    type_of("test.wrong")(wrong)
    desk.submit(project="a", type="test.wrong", max_attempts=1)
    desk.run_until_done(desk.worker())
    (row,) = platform.get("dead-letters").json()["results"]
    found = platform.get(f"dead-letters/{row['id']}").json()["traceback"]
    assert found.startswith("Traceback")
    assert "what went wrong" in found
    (other,) = kill(desk)
    assert platform.get(f"dead-letters/{other.uid}").json()["traceback"] is None


def test_bulk_replay_takes_each_letter_at_most_once(desk: Desk, platform: Api) -> None:
    letters = kill(desk, 120)
    others = kill(desk, 5, category="server")
    sent = {"filter": {"category": "code"}, "reason": "r"}
    assert platform.post("dead-letters/replay", {**sent, "dry_run": True}).json() == {"dry_run": True, "total": 120}
    assert not BulkAction.objects.exists()
    assert not DeadLetter.objects.exclude(handled_at=None).exists()
    answer = platform.post("dead-letters/replay", sent)
    assert (answer.status_code, answer.json()["total"], answer.json()["done"]) == (202, 120, 0)
    second = platform.post("dead-letters/replay", sent)
    platform.post(f"dead-letters/{letters[7].uid}/replay")
    while bulk_actions.process_next_slice():
        pass
    done = platform.get(f"dead-letters/actions/{answer.json()['id']}").json()
    again = platform.get(f"dead-letters/actions/{second.json()['id']}").json()
    assert (done["done"], done["skipped"], done["finished_at"] is None) == (119, 1, False)
    assert (again["done"], again["skipped"]) == (0, 120)
    assert {fresh(letter.job).replays for letter in letters} == {1}
    assert {fresh(letter.job).replays for letter in others} == {0}
    assert platform.post("dead-letters/replay", {"filter": {}, "reason": "r"}).status_code == 400
    assert platform.post("dead-letters/replay", {"filter": {"x": "y"}, "reason": "r"}).status_code == 400
    assert platform.post("dead-letters/replay", {"filter": {"category": "code"}}).status_code == 400


def test_what_dies_again_during_a_bulk_replay_is_another_letter(desk: Desk, platform: Api) -> None:
    kill(desk, 3)
    platform.post("dead-letters/replay", {"filter": {"category": "code"}, "reason": "r"})
    bulk_actions.process_next_slice()
    desk.skip(1)
    worker = desk.worker("w", places=100)
    desk.cycle()
    worker.settle(worker.claim(), failed("code", "it broke"))
    while bulk_actions.process_next_slice():
        pass
    assert DeadLetter.objects.filter(handled_at=None).count() == 3


def test_a_bulk_replay_ends_with_the_key_that_began_it(desk: Desk, platform: Api) -> None:
    kill(desk, 3)
    begun = platform.post("dead-letters/replay", {"filter": {"category": "code"}, "reason": "r"}).json()
    ApiKey.objects.update(revoked_at=clock.now())
    while bulk_actions.process_next_slice():
        pass
    action = BulkAction.objects.get(uid=begun["id"])
    assert (action.done, action.skipped) == (0, 0) and "API key" in action.stopped_why
    assert not DeadLetter.objects.exclude(handled_at=None).exists()
