"""What users of other limiters for Django and Flask have reported, tried on the middleware, decorator and throttle."""

from __future__ import annotations

import asyncio
import ipaddress
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client, RequestFactory
from django.urls import path
from django.views import View
from django.views.decorators.cache import cache_page

from quotas import limited, limits
from quotas.web.identity import client_ip
from tests.integration.quotas.api.conftest import empty, policy
from tests.integration.quotas.web.test_example import get, held, shop

__all__ = ["empty", "held", "shop"]


@cache_page(60)
@limited()
def cached(request: HttpRequest) -> HttpResponse:
    return HttpResponse("cached")


class Bare(View):
    """The decorator on the methods themselves, as it is often put."""

    @limited(user=lambda request, name: name)
    def get(self, request: HttpRequest, name: str) -> HttpResponse:
        return HttpResponse(name)


class BareAsync(View):
    @limited(user=lambda request, name: name)
    async def get(self, request: HttpRequest, name: str) -> HttpResponse:
        await asyncio.sleep(0)
        return HttpResponse(name)


def number_of(request: HttpRequest) -> Any:
    return 17


def keys_of(request: HttpRequest) -> Any:
    return {"chat": -100123}


urlpatterns = [
    path("cached", cached), path("bare/<str:name>", Bare.as_view()), path("bare-async/<str:name>", BareAsync.as_view()),
    path("plain", lambda request: HttpResponse("ok")),
]  # fmt: skip


@pytest.fixture(autouse=True)
def here(settings: Any, shop: None) -> None:
    settings.ROOT_URLCONF = __name__
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": "reports"}}


def test_an_answer_from_the_cache_carries_the_limits_of_its_own_request(held: None) -> None:
    policy("all", "global", 100)
    shown = [get("/cached")["X-RateLimit-Remaining"] for _ in range(3)]
    assert shown[1:] == ["97", "96"] and shown[0] in ("98", "99")


@pytest.mark.django_db(transaction=True)  # other threads read the configuration too
@pytest.mark.parametrize("kind", ["bare", "bare-async"])
def test_the_decorator_on_a_method_of_a_class(kind: str) -> None:
    policy("per-user", "user", 1)
    assert [get(f"/{kind}/{name}").status_code for name in ("a", "a", "b")] == [200, 429, 200]

    async def story() -> list[int]:
        return [(await AsyncClient().get(f"/{kind}/{name}")).status_code for name in ("c", "c")]

    assert asyncio.run(story()) == [200, 429]


def test_numbers_as_users_and_keys(held: None, settings: Any) -> None:
    settings.SLUICE = {**settings.SLUICE, "USER_OF": f"{__name__}.number_of", "KEYS_OF": f"{__name__}.keys_of"}
    policy("per-user", "user", 2)
    policy("per-chat", "custom", 2, key_name="chat")
    first = get("/plain")
    assert first.status_code == 200
    get("/plain")
    denied = get("/plain")
    assert denied.status_code == 429
    assert {state["key"] for state in denied.json()["limits"]} == {"17", "-100123"}
    assert not limits.check(project="shop", user="17"), "the same subject as by its text"


@pytest.mark.parametrize("user", ["x" * 5000, "\udcff", "a\x00b", "", " ", "ü" * 1024, "🦆", "a\nb: c"])
def test_any_text_is_a_user(held: None, settings: Any, user: str) -> None:
    settings.SLUICE = {**settings.SLUICE, "USER_OF": f"{__name__}.chosen_user"}
    globals()["chosen_user"] = lambda request: user
    from quotas.web import enforcement

    enforcement._read.cache_clear()
    policy("per-user", "user", 1)
    assert [get("/plain").status_code for _ in range(2)] == [200, 429]


def chosen_user(request: HttpRequest) -> Any:
    return None


@pytest.mark.parametrize(
    ("trusted", "remote", "forwarded", "found"),
    [
        ([], "", "203.0.113.9", None),
        (["10.0.0.0/8"], "", "203.0.113.9", "203.0.113.9"),
        (["10.0.0.0/8"], "", "198.51.100.1, 203.0.113.9, 10.0.0.1", "203.0.113.9"),
        (["10.0.0.0/8"], "", "", None),
        (["10.0.0.0/8"], "", "unknown", None),
        (["10.0.0.0/8"], "10.0.0.1", "fe80::1%eth0", "fe80::1"),
        (["10.0.0.0/8"], "10.0.0.1", "203.0.113.9,", "10.0.0.1"),
        (["::1/128"], "::1", "2001:db8::1", "2001:db8::1"),
        (["10.0.0.0/8"], "::ffff:10.0.0.1", "203.0.113.9", "203.0.113.9"),
        (["10.0.0.0/8"], "203.0.113.1", "198.51.100.7", "203.0.113.1"),
    ],
)
def test_addresses_behind_a_socket_or_a_proxy(
    settings: Any, trusted: list[str], remote: str, forwarded: str, found: str | None
) -> None:
    settings.TRUSTED_PROXIES = [ipaddress.ip_network(network) for network in trusted]
    request = RequestFactory().get("/", REMOTE_ADDR=remote, HTTP_X_FORWARDED_FOR=forwarded)
    assert client_ip(request) == found


def test_a_preflight_can_be_left_out_and_a_refusal_is_not_kept_by_caches(held: None, settings: Any) -> None:
    settings.SLUICE = {**settings.SLUICE, "EXCLUDED_PATHS": ["OPTIONS /*"]}
    policy("per-address", "ip", 1)
    client = Client()
    assert [client.options("/plain").status_code for _ in range(3)] == [200] * 3
    assert [get("/plain").status_code for _ in range(2)] == [200, 429]
    assert "no-store" in get("/plain").get("Cache-Control", "")
