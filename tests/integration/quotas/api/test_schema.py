"""The schema says what the endpoints do, and the docs page needs nothing from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client
from jsonschema import Draft202012Validator
from rest_framework.serializers import Serializer

from controlplane.models import AuditEntry
from quotas.api import documents
from quotas.api.check_body import CheckBody
from quotas.services import last_responses, rollups
from tests.integration.quotas.api.conftest import api, policy
from tests.integration.quotas.api.test_pools import make_pool

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


def test_operation_ids_are_unique(schema: dict[str, Any]) -> None:
    ids = [operation["operationId"] for operations in schema["paths"].values() for operation in operations.values()]
    assert len(ids) == len(set(ids))


def test_answers_are_as_described(schema: dict[str, Any]) -> None:
    """Every shape in `documents`, itself or inside another one: valid, and without a member that is not described."""
    policy("per-user", "user", 10)
    policy("moving", "user", 100, adaptive={"floor": 10, "ceiling": 200})
    make_pool(accounts=1)
    last_responses.forget()  # an account of another test had the same id
    caller = api()
    policy("tokens", "user", 1000, unit="tokens")
    reserved = caller.post("limits/check", {"user": "u", "cost": {"tokens": 5}})
    block = caller.post("limits/leases", {"user": "b", "unit": "requests", "units": 5, "ttl": 60})
    acquired = caller.post("pools/llm/acquire")
    lease = acquired.json()["lease"]
    settled = caller.post(f"leases/{lease}/settle", {"status": 200, "headers": {"x-ratelimit-limit-requests": "10"}})
    account = caller.get("accounts").json()["results"][0]["id"]
    rollups.Sampler().sample()
    verdict = {
        "policy": {"name": "per-user", "scope": "user", "algorithm": "fixed_window", "limit": 0, "window": "1h"},
        "from": "2026-01-01T00:00:00Z",
        "to": "2100-01-01T00:00:00Z",
    }
    shapes = {
        "Decision": reserved,
        "Denial": caller.post("limits/check", {"user": "u", "cost": {"tokens": 999}}),
        "CheckBatch": caller.post(
            "limits/check-batch", {"checks": [{"user": "u"}, {"user": "u", "cost": 11}, {"project": "nobody"}]}
        ),
        "Settlement": caller.post(
            "limits/settle", {"reservation": reserved.json()["reservation"], "actual": {"tokens": 3}}
        ),
        "Block": block,
        "BlockEnd": caller.delete(f"limits/leases/{block.json()['id']}", {"spent": 2}),
        "Usage": caller.get("limits/usage"),
        "CountedPolicies": caller.post("limits/outcomes", {"user": "u", "status": 200}),
        "History": caller.get("limits/usage/history", resolution="hour"),
        "AcquiredAccount": acquired,
        "LeaseEnd": settled,
        "Pool": caller.get("pools/llm"),
        "Pools": caller.get("pools"),
        "Accounts": caller.get("accounts"),
        "AccountDetail": caller.get(f"accounts/{account}"),
        "PoolExplanation": caller.get("pools/llm/explain"),
        "BacktestAnswer": caller.post("limits/backtest", verdict),
        "Reset": caller.post("limits/reset", {"all": True, "reason": "test"}),
        "Entries": caller.get("audit"),
        "Problem": caller.get("pools/nobody"),
    }
    seen: set[str] = set()
    components = schema["components"]["schemas"]
    for name, answer in shapes.items():
        rooted = {"$ref": f"#/components/schemas/{name}", "components": schema["components"]}
        problems = [error.message for error in Draft202012Validator(rooted).iter_errors(answer.json())]
        assert not problems, (name, problems)
        undescribed = list(
            _undescribed({"$ref": f"#/components/schemas/{name}"}, answer.json(), components, name, seen)
        )
        assert not undescribed, undescribed
    ours = {
        name
        for name, kind in vars(documents).items()
        if isinstance(kind, type) and issubclass(kind, Serializer) and kind.__module__ == documents.__name__
    }
    assert ours <= seen, f"no answer has the shape of {sorted(ours - seen)}"


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
