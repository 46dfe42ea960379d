"""Endpoint policies, cost rules and exemptions see the path that the router sees, in every spelling."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client, RequestFactory

from quotas import limits
from quotas.models import CostRule, Project
from quotas.snapshot import resolve
from quotas.web import enforcement
from tests.integration.quotas.api.conftest import api, empty, policy
from tests.integration.quotas.web.test_example import held, shop

__all__ = ["empty", "held", "shop"]

SPELLINGS = [
    "/rooms/a%23b/messages",
    "/rooms/a%3Fb/messages",
    "/rooms/a%3F/messages?x=/y",
    "/rooms/%2e%2e/messages",
    "/rooms/caf%C3%A9/messages",
    "/rooms/a;b=c/messages",
    "/rooms/a%25b/messages",
    "/r%6Foms/a/messages",
    "/rooms/a/messages?page=2",
    "/rooms/A/messages",
]


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("method", ["get", "post"])
def test_no_spelling_gets_past_the_middleware(held: None, spelling: str, method: str) -> None:
    policy("rooms", "endpoint", 0, match=f"{method.upper()} /rooms/*/messages")
    resolve.clear()
    assert getattr(Client(), method)(spelling).status_code == 429


def test_a_script_prefix_is_no_part_of_the_path(held: None) -> None:
    policy("plain", "endpoint", 0, match="GET /plain")
    resolve.clear()
    assert Client().get("/plain", SCRIPT_NAME="/app").status_code == 429
    resolve.clear()
    assert Client().get("/plain").status_code == 429


def test_a_policy_may_name_the_prefix_too(held: None) -> None:
    policy("plain", "endpoint", 0, match="GET /app/plain")
    resolve.clear()
    assert Client().get("/plain", SCRIPT_NAME="/app").status_code == 429


def test_cost_rules_see_the_same_path(held: None) -> None:
    policy("all", "global", 100)
    CostRule.objects.create(match="GET /rooms/*/messages", cost={"requests": 7})
    resolve.clear()
    assert Client().get("/rooms/a%23b/messages")["X-RateLimit-Remaining"] == "93"


def test_no_spelling_gets_into_an_exemption(held: None, settings: Any) -> None:
    settings.SLUICE = {"PROJECT": "shop", "EXCLUDED_PATHS": ["/static/*", "/health"]}
    policy("all", "global", 0)
    resolve.clear()
    client = Client()
    assert client.get("/health").status_code == 200
    assert client.get("/health?x=1").status_code == 200
    for spelling in ("/rooms/a%2Fhealth", "/plain?/health", "/plain%3F/static/x", "/Health"):
        assert client.get(spelling).status_code == 429, spelling


@pytest.mark.parametrize(
    "spelling",
    [
        "/rooms/a%23b/messages", "/rooms/a#b/messages", "/rooms/a?b/messages", "/rooms/a%3Fb/messages",
        "/rooms/a/messages?x=1", "//rooms//a/messages", "/x/../rooms/a/messages", "/./rooms/a/messages/",
        "/rooms/a/messages;v=1", "/r%6Foms/a/messages", "/rooms/a/%6Dessages", "/rooms/a/x/%2e%2e/messages",
    ],
)  # fmt: skip
def test_no_spelling_gets_past_a_rest_check(settings: Any, spelling: str) -> None:
    settings.ROOT_URLCONF = "controlplane.urls"
    Project.objects.create(slug="acme")
    policy("rooms", "endpoint", 0, match="POST /rooms/*/messages")
    policy("exact", "endpoint", 0, match="POST /rooms/a/messages")
    asked = {"endpoint": spelling, "method": "POST", "project": "acme"}
    answer = api("check").post("limits/check", asked)
    assert answer.status_code == 429, answer.json()
    if "b" not in spelling:
        assert answer.json()["violated-policies"] == ["exact", "rooms"]
    resolve.clear()
    assert not limits.check(project="acme", endpoint=spelling, method="POST")


def test_an_exemption_is_not_reached_by_dots() -> None:
    policy("all", "global", 0, excluded_paths=["/static/*"])
    resolve.clear()
    assert limits.check(endpoint="/static/app.js?v=1", method="GET")
    for spelling in ("/static/../v1/chat", "/static/%2e%2e/v1/chat", "/static/..%2fv1/chat"):
        assert not limits.check(endpoint=spelling, method="GET"), spelling


def test_the_decorator_and_the_throttle_see_it_too() -> None:
    policy("all", "endpoint", 0, match="GET /export")
    policy("search", "endpoint", 0, match="GET /search")
    resolve.clear()
    assert Client().get("/%65xport?x=1").status_code == 429
    assert Client().get("/se%61rch", SCRIPT_NAME="/app").status_code == 429
    request = RequestFactory().get("/export", SCRIPT_NAME="/app")
    assert enforcement.check_of(request).endpoint == "/export"
