"""What users of other limiters ran into, at the doors of this one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from django.test import Client

from quotas import limits
from quotas.models import Policy, Project
from quotas.services.usage import Selection, usage
from quotas.snapshot import resolve
from tests.integration.quotas.api.conftest import api, empty, policy
from tests.integration.quotas.web.test_example import get, held, shop

__all__ = ["empty", "held", "shop"]

WINDOWED = ["fixed_window", "sliding_window", "sliding_window_counter", "token_bucket"]


@pytest.fixture
def acme(settings: Any) -> None:
    settings.ROOT_URLCONF = "controlplane.urls"
    Project.objects.create(slug="acme")


@pytest.mark.parametrize("algorithm", WINDOWED)
def test_an_overdrawn_counter_is_never_below_zero_and_lets_nothing_pass(acme: None, algorithm: str) -> None:
    policy("tokens", "project", 1000, unit="tokens", algorithm=algorithm)
    key = api("check", "read", project="acme")
    reservation = key.post("limits/check", {}).json()["reservation"]
    key.post("limits/settle", {"reservation": reservation, "actual": {"tokens": 5000}})
    refused = key.post("limits/check", {"cost": {"tokens": 1}})
    assert refused.status_code == 429 and refused.json()["limits"][0]["remaining"] == 0
    assert key.post("limits/leases", {"units": 50, "unit": "tokens"}).status_code == 429
    assert key.post("limits/check", {"cost": {"tokens": 0}}).status_code == 200
    (row,) = key.get("limits/usage", policy="tokens").json()["results"]
    assert row["remaining"] == 0 and row["used"] in (5000, 4999)


@pytest.mark.parametrize("algorithm", WINDOWED)
def test_a_refund_at_the_limit_makes_room(acme: None, algorithm: str) -> None:
    policy("tokens", "project", 1000, unit="tokens", algorithm=algorithm)
    key = api("check", project="acme")
    reservation = key.post("limits/check", {"cost": {"tokens": 1000}}).json()["reservation"]
    assert key.post("limits/check", {"cost": {"tokens": 1}}).status_code == 429
    key.post("limits/settle", {"reservation": reservation, "actual": {"tokens": 0}})
    room = 999 if algorithm == "token_bucket" else 1000  # what may have drained by itself is not refunded
    assert key.post("limits/check", {"cost": {"tokens": room}}).status_code == 200


@pytest.mark.parametrize("algorithm", WINDOWED)
@pytest.mark.parametrize("limit", [5, 20])
def test_another_limit_holds_at_once_and_refills_nothing(acme: None, algorithm: str, limit: int) -> None:
    policy("all", "project", 10, algorithm=algorithm)
    key = api("check", project="acme")
    assert [key.post("limits/check", {}).status_code for _ in range(11)] == [200] * 10 + [429]
    Policy.objects.filter(name="all").update(limit=limit)
    answers = [key.post("limits/check", {}) for _ in range(11)]
    assert [answer.status_code for answer in answers].count(200) == max(0, limit - 10)
    assert answers[-1].json()["limits"][0]["limit"] == limit


@pytest.mark.django_db(transaction=True)
def test_sync_and_async_callers_share_one_counter() -> None:
    policy("all", "project", 4)
    resolve.clear()
    assert limits.check(project="shop")

    async def more() -> list[bool]:
        found = [
            bool(await limits.check_async(project="shop")),
            bool(await limits.check_async(project="shop", max_wait=1)),
        ]
        async with limits.reserve_async(project="shop", max_wait=1):
            return found

    assert asyncio.run(more()) == [True, True]
    assert usage(Selection(policy="all"))[0].used == 4
    assert not limits.check(project="shop")


def test_a_call_of_one_refused_limit_charges_none_of_the_others(acme: None) -> None:
    policy("wide", "global", 100)
    policy("tight", "project", 0)
    for _ in range(3):
        assert not limits.check(project="acme")
    assert usage(Selection(policy="wide")) == []


@pytest.mark.parametrize("method", ["head", "options", "put", "delete", "trace"])
def test_no_method_is_free(held: None, method: str) -> None:
    policy("all", "ip", 1)
    resolve.clear()
    assert getattr(Client(), method)("/plain").status_code < 429
    refused = getattr(Client(), method)("/plain")
    assert refused.status_code == 429 and refused["Retry-After"]


def test_a_made_up_method_is_no_way_past_a_policy_of_one_method(held: None) -> None:
    policy("get", "endpoint", 0, match="GET /plain")
    resolve.clear()
    assert Client().generic("get", "/plain").status_code == 429, "Django reads methods in upper case"


def test_a_view_that_is_not_found_or_raises_is_counted_once(held: None) -> None:
    policy("all", "ip", 3)
    client = Client(raise_request_exception=False)
    answers = [get(path, client) for path in ("/nowhere", "/broken", "/plain")]
    assert [answer.status_code for answer in answers] == [404, 500, 200]
    assert get("/plain", client).status_code == 429


def test_a_throttle_that_no_wait_helps_answers_too() -> None:
    policy("none", "global", 0)
    refused = get("/search")
    assert refused.status_code == 429 and "Retry-After" not in refused


def test_a_streams_head_is_sent_once_and_its_length_stays(held: None) -> None:
    policy("all", "ip", 9)
    answer = get("/stream/file")
    assert answer["Content-Length"] == "7" and answer["RateLimit"]
    assert b"".join(answer.streaming_content) == b"one two"
