"""The example project's views, checked against policies by middleware, decorator and throttle."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import AsyncClient, Client

from quotas.models import Network, Project
from quotas.services.usage import Selection, usage
from quotas.snapshot import resolve
from tests.integration.quotas.api.conftest import empty, policy
from tests.support.limiter_server import limiter_at

__all__ = ["empty"]
MIDDLEWARE = "quotas.middleware.RateLimitMiddleware"


@pytest.fixture(autouse=True)
def shop(settings: Any) -> Iterator[None]:
    settings.ROOT_URLCONF = "tests.example.urls"
    settings.SLUICE = {"PROJECT": "shop", "EXCLUDED_PATHS": ["/health"]}
    Project.objects.create(slug="shop")
    yield


@pytest.fixture
def held(settings: Any) -> None:
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, MIDDLEWARE]


def get(path: str, client: Client | None = None, **headers: str) -> Any:
    resolve.clear()
    return (client or Client()).get(path, headers={name.replace("_", "-"): value for name, value in headers.items()})


def test_middleware_denies_with_a_problem_and_reports_what_is_left(held: None) -> None:
    policy("per-address", "ip", 2)
    first = get("/plain")
    assert first.status_code == 200 and first["X-RateLimit-Remaining"] == "1"
    assert get("/plain").status_code == 200
    denied = get("/plain")
    assert denied.status_code == 429 and denied["Content-Type"] == "application/problem+json"
    assert int(denied["Retry-After"]) >= 1 and denied.json()["violated-policies"] == ["per-address"]
    assert get("/health").status_code == 200, "an excluded path"


def test_limits_are_listed_in_their_order(held: None) -> None:
    for name, scope in (("d", "endpoint"), ("c", "project"), ("b", "user"), ("a", "ip")):
        policy(name, scope, 0 if scope == "endpoint" else 9, match="GET /plain" if scope == "endpoint" else "")
    client = Client()
    client.force_login(User.objects.create_user("ann"))
    denied = get("/plain", client)
    assert [state["scope"] for state in denied.json()["limits"]] == ["ip", "user", "project", "endpoint"]
    assert denied.json()["limits"][2]["key"] == "shop"


def test_users_are_counted_apart(held: None) -> None:
    policy("per-user", "user", 1)
    clients = []
    for name in ("ann", "bob"):
        client = Client()
        client.force_login(User.objects.create_user(name))
        clients.append(client)
    assert [get("/plain", client).status_code for client in (*clients, *clients)] == [200, 200, 429, 429]
    assert get("/plain").status_code == 200, "nobody is no user"


@pytest.mark.parametrize(
    ("trusted", "forwarded", "counted"),
    [
        ([], "203.0.113.9", "127.0.0.1"),
        (["127.0.0.0/8"], "203.0.113.9", "203.0.113.9"),
        (["127.0.0.0/8"], "198.51.100.1, 203.0.113.9", "203.0.113.9"),
        (["127.0.0.0/8", "10.0.0.0/8"], "198.51.100.1, 203.0.113.9, 10.1.1.1", "203.0.113.9"),
        (["127.0.0.0/8"], "198.51.100.1, nonsense", "127.0.0.1"),
        (["127.0.0.0/8"], "203.0.113.9:4711", "203.0.113.9"),
        (["127.0.0.0/8"], "[2001:db8::7]:443", "2001:db8::/64"),
        (["127.0.0.0/8"], "::ffff:203.0.113.9", "203.0.113.9"),
    ],
)
def test_address_is_taken_from_trusted_proxies_only(
    held: None, settings: Any, trusted: list[str], forwarded: str, counted: str
) -> None:
    settings.TRUSTED_PROXIES = [ipaddress.ip_network(network) for network in trusted]
    policy("per-address", "ip", 0)
    assert get("/plain", X_Forwarded_For=forwarded).json()["limits"][0]["key"] == counted


def test_decorator_on_plain_and_class_based_views() -> None:
    policy("all", "global", 6)
    policy("per-customer", "user", 1)
    assert get("/export").status_code == 200
    denied = get("/export")
    assert denied.status_code == 429 and denied.json()["binding"] == "all"
    assert get("/orders", X_Customer="c-1").status_code == 200
    refused = get("/orders", X_Customer="c-1")
    assert refused.status_code == 429 and "per-customer" in refused.json()["violated-policies"]


def test_throttle_answers_in_rest_frameworks_way() -> None:
    policy("all", "global", 3)
    assert get("/search").status_code == 200
    denied = get("/search")
    assert denied.status_code == 429 and int(denied["Retry-After"]) >= 1
    Network.objects.create(name="local", action="deny", cidrs=["127.0.0.0/8"])
    assert get("/search").status_code == 403


def test_concurrency_slot_is_given_back_with_the_answer(held: None) -> None:
    policy("one-at-a-time", "project", 1, algorithm="concurrency", window=None)
    assert [get("/plain").status_code for _ in range(3)] == [200, 200, 200]


@pytest.mark.django_db(transaction=True)
def test_async_forms(held: None) -> None:
    policy("all", "global", 3)
    policy("per-chat", "custom", 1, key_name="chat")
    resolve.clear()

    async def main() -> list[int]:
        client = AsyncClient()
        paths = ["/plain-async", "/chats/7/send", "/plain-async"]
        return [(await client.get(path)).status_code for path in paths]

    # The middleware and the decorator both count: the chat's view is charged twice.
    assert asyncio.run(main()) == [200, 200, 429]


@pytest.mark.django_db(transaction=True)
def test_async_handlers_of_a_class(settings: Any) -> None:
    policy("all", "global", 4)
    policy("per-chat", "custom", 2, key_name="chat")
    policy("slots", "project", 3, algorithm="concurrency", window=None)
    resolve.clear()

    async def main() -> list[int]:
        client = AsyncClient()
        answers = [await client.get("/rooms/7"), await client.get("/rooms/7"), await client.get("/rooms/7")]
        # The class's own check and the method's: three of `all`, of which two were used.
        answers += [await client.post("/rooms/8"), await client.get("/rooms/9"), await client.get("/rooms/10")]
        assert answers[0]["X-RateLimit-Remaining"] == "1", "of the tightest policy, this chat's"
        return [answer.status_code for answer in answers]

    assert asyncio.run(main()) == [200, 200, 429, 429, 200, 429]
    assert usage(Selection(policy="slots")) == [], "each slot was released"


def test_without_redis_nothing_gets_past_a_closed_policy(held: None) -> None:
    policy("closed", "global", 5)
    with limiter_at("unix:///nowhere/valkey.sock"):
        answer = get("/plain")
        assert answer.status_code == 503 and answer["Retry-After"]


def test_request_of_an_unknown_project_is_refused(held: None, settings: Any) -> None:
    settings.SLUICE = {"PROJECT": "nobody"}
    assert get("/plain").status_code == 403
