"""The schema says what the endpoints do, and the docs page needs nothing from elsewhere."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.test import Client
from jsonschema import Draft202012Validator

from controlplane.models import AuditEntry
from quotas.api.check_body import CheckBody
from tests.integration.quotas.api.conftest import api, policy
from tests.integration.quotas.api.test_pools import make_pool


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
    policy("per-user", "user", 1)
    make_pool(accounts=1)
    caller = api()
    shapes = {
        "Decision": caller.post("limits/check", {"user": "u"}),
        "Denial": caller.post("limits/check", {"user": "u"}),
        "Usage": caller.get("limits/usage"),
        "AcquiredAccount": caller.post("pools/llm/acquire"),
        "Pool": caller.get("pools/llm"),
        "Pools": caller.get("pools"),
        "Accounts": caller.get("accounts"),
        "PoolExplanation": caller.get("pools/llm/explain"),
        "BacktestAnswer": caller.post(
            "limits/backtest",
            {
                "policy": {
                    "name": "per-user",
                    "scope": "user",
                    "algorithm": "fixed_window",
                    "limit": 0,
                    "window": "1h",
                },
                "from": "2026-01-01T00:00:00Z",
                "to": "2100-01-01T00:00:00Z",
            },
        ),
        "Entries": caller.get("audit"),
        "Problem": caller.get("pools/nobody"),
    }
    for name, answer in shapes.items():
        rooted = {"$ref": f"#/components/schemas/{name}", "components": schema["components"]}
        problems = [error.message for error in Draft202012Validator(rooted).iter_errors(answer.json())]
        assert not problems, (name, problems)
        described = schema["components"]["schemas"][name]["properties"]
        assert set(answer.json()) <= set(described), (name, set(answer.json()) - set(described))


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
