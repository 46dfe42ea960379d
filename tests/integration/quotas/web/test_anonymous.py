"""Requests whose user no policy needs: their sessions are not read."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import AsyncClient, Client
from django.test.utils import CaptureQueriesContext

from quotas.models import Project, Tier, TierUser
from quotas.snapshot import resolve
from tests.integration.quotas.api.conftest import empty, policy
from tests.integration.quotas.web.test_example import get, held, shop

__all__ = ["empty", "held", "shop"]


@pytest.fixture
def ann(held: None) -> Client:
    client = Client()
    client.force_login(User.objects.create_user("ann"))
    return client


def queries_of_sessions(client: Client, path: str) -> tuple[Any, list[str]]:
    with CaptureQueriesContext(connection) as found:
        answer = get(path, client)
    return answer, [query["sql"] for query in found if "django_session" in query["sql"] or "auth_user" in query["sql"]]


@pytest.mark.parametrize("scope", ["ip", "project", "endpoint"])
def test_no_session_is_read_without_a_policy_of_users(ann: Client, scope: str) -> None:
    policy("one", scope, 50, match="/*" if scope == "endpoint" else "")
    for path in ("/plain", "/export"):
        answer, queries = queries_of_sessions(ann, path)
        assert answer.status_code == 200 and answer["X-RateLimit-Limit"] == "50"
        assert queries == []
        assert "Cookie" not in answer.get("Vary", "")


@pytest.mark.django_db(transaction=True)
def test_no_session_is_read_by_async_views(ann: Client) -> None:
    policy("one", "ip", 5)
    resolve.clear()
    client = AsyncClient()
    client.cookies = ann.cookies
    answer = asyncio.run(client.get("/plain-async"))
    assert answer.status_code == 200 and "Cookie" not in answer.get("Vary", "")


def test_a_policy_of_users_reads_it(ann: Client) -> None:
    policy("one", "user", 1)
    answer, queries = queries_of_sessions(ann, "/plain")
    assert answer.status_code == 200 and queries and "Cookie" in answer["Vary"]
    assert get("/plain", ann).status_code == 429


def test_a_tier_of_users_reads_it(ann: Client) -> None:
    tier = Tier.objects.create(name="gold")
    TierUser.objects.create(tier=tier, user=str(User.objects.get().pk))
    policy("gold", "project", 1, tier=tier)
    assert Project.objects.get().tier is None
    assert [get("/plain", ann).status_code for _ in range(2)] == [200, 429]
    assert get("/plain").status_code == 200, "nobody is in no tier"


def test_a_callable_that_names_users_is_not_called_either(settings: Any, held: None) -> None:
    settings.SLUICE = {**settings.SLUICE, "USER_OF": f"{__name__}.fails"}
    policy("one", "ip", 5)
    assert get("/plain").status_code == 200


def fails(request: Any) -> str:
    raise AssertionError("no policy needs the user")
