"""The schema says what the endpoints do, and the docs page needs nothing from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from django.test import Client
from jsonschema import Draft202012Validator

from controlplane.alerts import records, summaries
from controlplane.models import AuditEntry
from queues.errors import InvalidJob
from queues.job_types.http_request import HttpRequest
from queues.specs import read_job
from quotas import events
from quotas.api.check_body import CheckBody
from quotas.services import last_responses, rollups
from quotas.shapes import Shape
from tests.integration.queues.desk import Desk
from tests.integration.quotas.api.conftest import api, policy
from tests.integration.quotas.api.test_pools import make_pool

PACKAGES = ("controlplane.", "queues.", "quotas.")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@pytest.fixture
def schema() -> dict[str, Any]:
    answer = Client().get("/api/v1/schema")
    assert answer.status_code == 200
    document: dict[str, Any] = answer.json()
    return document


def test_every_path_is_described_with_scopes_and_problems(schema: dict[str, Any]) -> None:
    assert schema["openapi"].startswith("3.1")
    paths = schema["paths"]
    for path in ("limits/check", "limits/check-batch", "limits/settle", "limits/usage", "limits/reset",
                 "rate-limiter/reset", "limits/leases", "limits/backtest", "pools", "pools/{pool}/acquire", "leases/{lease}/settle",
                 "accounts/{account}", "pools/{pool}/explain", "audit", "jobs", "jobs/bulk", "queues"):  # fmt: skip
        assert f"/api/v1/{path}" in paths, path
    for path, operations in paths.items():
        for method, operation in operations.items():
            content = operation["responses"]["default"]["content"]
            assert "application/problem+json" in content, (path, method)
            assert operation["security"], (path, method)
    check = paths["/api/v1/limits/check"]["post"]
    assert {"200", "422", "429", "default"} <= set(check["responses"])
    body = schema["components"]["schemas"]["CheckBodyRequest"]
    assert body["additionalProperties"] is False
    assert set(body["properties"]) == set(CheckBody().fields)


@pytest.mark.parametrize(
    ("member", "right", "wrong"),
    [
        ("type", ["t" * 200], ["", "t" * 201, None, 3]),
        ("queue", ["q" * 63, None], ["q" * 64, 3]),
        ("payload", [{"a": None}], [None, []]),
        ("user", ["", "u" * 1024, None], ["u" * 1025]),
        ("delay", [0, 366 * 86400, None], [-1, 366 * 86400 + 1, "5"]),
        ("max_attempts", [1, 1000, None], [0, 1001, 1.5]),
        ("timeout", [0.001, 86400, None], [-1, 86401]),
        ("delivery", ["at_most_once", None], ["exactly_once"]),
        ("after", [["a"] * 1000, None], [["a"] * 1001, [3]]),
        ("keys", [{"chat": "-1"}, None], [[], {"chat": 1}]),
        ("idempotency_key", ["k" * 255, None], ["", "k" * 256]),
    ],
)
def test_the_schema_of_a_job_says_what_is_taken(
    schema: dict[str, Any], member: str, right: list[Any], wrong: list[Any]
) -> None:
    described = {"$ref": "#/components/schemas/JobRequestRequest", "components": schema["components"]}
    checked = Draft202012Validator(described)
    for value in [*right, *wrong]:
        body = {"type": "t", member: value}
        assert checked.is_valid(body) == (value in right), value
        try:
            read_job(body)
        except InvalidJob:
            assert value not in right, value
        else:
            assert value in right, value


@pytest.mark.parametrize(
    ("member", "right", "wrong"),
    [
        ("pool", ["p" * 63], ["", "p" * 64, None, 3]),
        ("method", ["GET", "DELETE"], ["get", None, 3]),
        (
            "path",
            ["/", "/v1/a?b=c%20d"],
            ["", "//other.host/", "https://x/", "/a b", "/a\\b", "/a#b", "/\u00e9", None],
        ),
        ("headers", [{}, {"X-A": "1"}], [None, [], {"X-A": 1}]),
        ("json", [None, 1, {"a": []}], []),
        ("body", ["", "text"], [None, {}]),
        ("expect", [[200], [100, 599]], [[], [99], [600], ["200"], None]),
        ("paht", [], ["/"]),
    ],
)
def test_the_schema_of_a_call_says_what_is_taken(
    schema: dict[str, Any], member: str, right: list[Any], wrong: list[Any]
) -> None:
    described = {"$ref": "#/components/schemas/HttpRequestPayloadRequest", "components": schema["components"]}
    checked = Draft202012Validator(described)
    for value in [*right, *wrong]:
        payload = {"path": "/", member: value}
        found = HttpRequest().validate(payload, "/payload")
        assert bool(found) == (value not in right), (value, found)
        if member in described["components"]["schemas"]["HttpRequestPayloadRequest"]["properties"]:
            assert checked.is_valid(payload) == (value in right), value
        assert all(
            error.pointer == f"/payload/{member}" or error.pointer.startswith(f"/payload/{member}/") for error in found
        )


def test_a_path_has_one_line() -> None:
    assert [error.pointer for error in HttpRequest().validate({"path": "/a\n"}, "/payload")] == ["/payload/path"]


def test_operation_ids_are_unique(schema: dict[str, Any]) -> None:
    ids = [operation["operationId"] for operations in schema["paths"].values() for operation in operations.values()]
    assert len(ids) == len(set(ids))


@dataclass
class Answers:
    """Compares answers with their shapes, and remembers which shapes occurred."""

    schema: dict[str, Any]
    seen: set[str] = field(default_factory=set)

    def compare(self, shapes: Mapping[str, Any]) -> None:
        """By component: valid, and without a member that is not described."""
        components = self.schema["components"]["schemas"]
        for name, answer in shapes.items():
            value = answer.json() if hasattr(answer, "json") else answer
            rooted = {"$ref": f"#/components/schemas/{name}", "components": self.schema["components"]}
            problems = [error.message for error in Draft202012Validator(rooted).iter_errors(value)]
            assert not problems, (name, problems, value)
            root = {"$ref": f"#/components/schemas/{name}"}
            undescribed = list(_undescribed(root, value, components, name, self.seen))
            assert not undescribed, undescribed


def test_every_answer_is_as_described(desk: Desk, schema: dict[str, Any]) -> None:
    """Every shape of the product occurs in an answer, itself or inside another one."""
    answers = Answers(schema)
    _compare_limits(answers)
    _compare_accounts(answers)
    _compare_jobs(answers, desk)
    _compare_dead_letters(answers, desk)
    _compare_operation(answers)
    shapes = {shape.__name__ for shape in _shapes(Shape) if shape.__module__.startswith(PACKAGES)} - {"Page"}
    assert len(shapes) > 50
    assert shapes <= answers.seen, f"no answer has the shape of {sorted(shapes - answers.seen)}"
    components = set(schema["components"]["schemas"])
    assert shapes <= components, f"not in the schema: {sorted(shapes - components)}"


def _shapes(base: type[Shape]) -> Iterator[type[Shape]]:
    for shape in base.__subclasses__():
        yield shape
        yield from _shapes(shape)


def _compare_limits(answers: Answers) -> None:
    policy("per-user", "user", 10)
    policy("moving", "user", 100, adaptive={"floor": 10, "ceiling": 200})
    policy("tokens", "user", 1000, unit="tokens")
    caller = api()
    reserved = caller.post("limits/check", {"user": "u", "cost": {"tokens": 5}})
    block = caller.post("limits/leases", {"user": "b", "unit": "requests", "units": 5, "ttl": 60})
    rollups.Sampler().sample()
    verdict = {
        "policy": {"name": "per-user", "scope": "user", "algorithm": "fixed_window", "limit": 0, "window": "1h"},
        "from": "2026-01-01T00:00:00Z",
        "to": "2100-01-01T00:00:00Z",
    }
    checks = [{"user": "u"}, {"user": "u", "cost": 11}, {"project": "nobody"}]
    settlement = {"reservation": reserved.json()["reservation"], "actual": {"tokens": 3}}
    answers.compare(
        {
            "Decision": reserved,
            "Denial": caller.post("limits/check", {"user": "u", "cost": {"tokens": 999}}),
            "CheckBatch": caller.post("limits/check-batch", {"checks": checks}),
            "Settlement": caller.post("limits/settle", settlement),
            "Block": block,
            "BlockEnd": caller.delete(f"limits/leases/{block.json()['id']}", {"spent": 2}),
            "Usage": caller.get("limits/usage"),
            "CountedPolicies": caller.post("limits/outcomes", {"user": "u", "status": 200}),
            "History": caller.get("limits/usage/history", resolution="hour"),
            "BacktestAnswer": caller.post("limits/backtest", verdict),
            "Reset": caller.post("limits/reset", {"all": True, "reason": "test"}),
        }
    )
    impossible = caller.post("limits/check", {"user": "u", "cost": {"tokens": 1001}})
    assert impossible.status_code == 422
    answers.compare({"Denial": impossible})


def _compare_accounts(answers: Answers) -> None:
    make_pool(accounts=1)
    last_responses.forget()  # an account of another test had the same id
    caller = api()
    acquired = caller.post("pools/llm/acquire")
    report = {"status": 200, "headers": {"x-ratelimit-limit-requests": "10"}}
    settled = caller.post(f"leases/{acquired.json()['lease']}/settle", report)
    account = caller.get("accounts").json()["results"][0]["id"]
    answers.compare(
        {
            "AcquiredAccount": acquired,
            "LeaseEnd": settled,
            "Pool": caller.get("pools/llm"),
            "Pools": caller.get("pools"),
            "Accounts": caller.get("accounts"),
            "AccountDetail": caller.get(f"accounts/{account}"),
            "Account": caller.post(f"accounts/{account}/trip", {"reason": "test"}),
            "PoolExplanation": caller.get("pools/llm/explain"),
        }
    )
    answers.compare({"Pool": api(project="acme").get("pools/llm")})


def _compare_jobs(answers: Answers, desk: Desk) -> None:
    desk.project("acme")
    desk.queue("slow", concurrency=0)
    caller, body = api(), {"type": "test.echo", "project": "acme"}
    submitted = caller.post("jobs", {**body, "payload": {"x": 1}, "user": "u", "keys": {"chat": "1"}})
    desk.run_until_done(desk.worker())
    job = submitted.json()["id"]
    bulk = caller.post("jobs/bulk", {"batch": {"name": "n", "open": True}, "jobs": [{**body, "queue": "slow"}] * 2})
    batch, waiting = bulk.json()["batch"]["id"], bulk.json()["ids"][0]
    desk.cycle()
    answers.compare(
        {
            "JobAnswer": submitted,
            "BulkAnswer": bulk,
            "JobPage": caller.get("jobs"),
            "Timeline": caller.get(f"jobs/{job}/timeline"),
            "Explanation": caller.get(f"jobs/{waiting}/explain"),
            "BatchDetail": caller.get(f"batches/{batch}"),
            "BatchAnswer": caller.post(f"batches/{batch}/seal"),
            "QueuePage": caller.get("queues"),
            "QueueAnswer": caller.post("queues/slow/pause", {"reason": "test"}),
            "QueueStatus": caller.get("queue/status"),
            "QueueStats": caller.get("queue/stats"),
            "RecentPage": caller.get("queue/requests"),
            "WorkerPage": caller.get("workers"),
            "ForecastAnswer": caller.post(
                "forecast", {"queue": "slow", "what_if": {"accounts": {"llm": 1}, "limits": {"per-user": 5}}}
            ),
        }
    )
    answers.compare({"JobAnswer": caller.get(f"jobs/{job}"), "Explanation": caller.get(f"jobs/{job}/explain")})


def _compare_dead_letters(answers: Answers, desk: Desk) -> None:
    desk.submit(2, type="test.fail", payload={"category": "code"}, max_attempts=1)
    desk.queue("idle")
    worker = desk.worker("w2")
    desk.run_until_done_but(worker, 2)
    caller = api()
    letters = caller.get("dead-letters").json()["results"]
    discarded = caller.post(f"dead-letters/{letters[0]['id']}/discard", {"reason": "test"})
    many = {"filter": {"category": "code"}, "reason": "test"}
    begun = caller.post("dead-letters/replay", many)
    answers.compare(
        {
            "DeadLetterPage": caller.get("dead-letters"),
            "DeadLetterGroupPage": caller.get("dead-letters/groups"),
            "DeadLetterWhole": caller.get(f"dead-letters/{letters[1]['id']}"),
            "DeadLetterAnswer": discarded,
            "BulkPreview": caller.post("dead-letters/replay", {**many, "dry_run": True}),
            "BulkAction": caller.get(f"dead-letters/actions/{begun.json()['id']}"),
        }
    )


def _compare_operation(answers: Answers) -> None:
    caller = api()
    records.report(summaries.auth_failed("llm", "a1"))
    events.emit(
        events.CallEnded(
            call="c1", at=1.5, pool="llm", method="POST", path="/v1/chat", model="", user="", actor="test", account="a1",
            status=200, outcome="ok", attempts=1, waited=0.0, seconds=0.1234567, overhead=0.001, first_byte=None,
            is_stream=False, cost={"requests": 1}, actual={"requests": 1},
        )
    )  # fmt: skip
    alerts = caller.get("alerts")
    answers.compare(
        {
            "Entries": caller.get("audit"),
            "AlertPage": alerts,
            "AlertBody": caller.get(f"alerts/{alerts.json()['results'][0]['id']}"),
            "CallPage": caller.get("calls"),
            "CallBody": caller.get("calls/c1"),
            "CallExplanation": caller.get("calls/c1/explain"),
            "Problem": caller.get("pools/nobody"),
        }
    )
    answers.compare({"Problem": caller.get("jobs", limit="0")})


def _undescribed(
    shape: dict[str, Any], value: Any, components: dict[str, Any], place: str, seen: set[str]
) -> Iterator[str]:
    """Members of `value` that its shape does not name, and times in another form than all others."""
    if value is None:
        return
    for part in shape.get("oneOf", shape.get("allOf", ())):
        if part.get("type") != "null":
            yield from _undescribed(part, value, components, place, seen)
    if "$ref" in shape:
        name = shape["$ref"].rsplit("/", 1)[1]
        seen.add(name)
        yield from _undescribed(components[name], value, components, place, seen)
    elif isinstance(value, list):
        for item in value:
            yield from _undescribed(shape.get("items", {}), item, components, f"{place}[]", seen)
    elif isinstance(value, dict):
        members = shape.get("properties")
        for name, inner in value.items():
            if members is None:
                yield from _undescribed(shape.get("additionalProperties") or {}, inner, components, place, seen)
            elif name in members:
                yield from _undescribed(members[name], inner, components, f"{place}.{name}", seen)
            else:
                yield f"{place}.{name}"
    elif shape.get("format") == "date-time" and not TIME.fullmatch(value):
        yield f"{place}: {value}"


def test_docs_load_nothing_from_elsewhere() -> None:
    page = Client().get("/api/v1/docs")
    assert page.status_code == 200 and page["Content-Type"].startswith("text/html")
    sources = re.findall(r'(?:src|href)="([^"]+)"', page.content.decode())
    assert sources and all(source.startswith(("/", "data:")) for source in sources), sources


def test_audit_is_the_admins_and_a_project_sees_its_own() -> None:
    platform, acme = api(), api(project="acme")
    platform.post("limits/reset", {"all": True, "reason": "spring cleaning"})
    acme.post("limits/reset", {"all": True, "reason": "ours"})
    rows = platform.get("audit", verb="limit.reset").json()["results"]
    assert [(row["actor"], row["project"], row["reason"]) for row in rows] == [
        ("key:test", "acme", "ours"),
        ("key:test", "", "spring cleaning"),
    ]
    assert {row["project"] for row in acme.get("audit").json()["results"]} == {"acme"}
    assert platform.get("audit", target="all", verb="limit.reset").json()["results"][0]["after"] == {"reset": 0}
    assert len(platform.get("audit", limit=500).json()["results"]) == AuditEntry.objects.count()
    assert api("read").get("audit").status_code == 403
    assert platform.get("audit", who="me").status_code == 400
