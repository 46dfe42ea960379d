"""When counters begin anew: after a change of what is counted, and with a project that is made anew; never else."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import redis
import yaml
from django.utils import timezone

from controlplane import config
from quotas import limits
from quotas.models import Override, Policy, Project, UsageRollup
from quotas.runtime.connection import limiter
from quotas.services.rollups import Sampler, restore_calendars
from quotas.services.usage import Selection, usage
from quotas.snapshot import resolve
from tests.integration.quotas.api.conftest import api, empty, policy

__all__ = ["empty"]

BASE: dict[str, Any] = {
    "name": "p", "scope": "custom", "key_name": "chat", "unit": "requests", "algorithm": "fixed_window",
    "limit": 5, "window": "1h",
}  # fmt: skip


@pytest.fixture(autouse=True)
def projects() -> Iterator[None]:
    Project.objects.create(slug="acme")
    yield


def configured(**changes: Any) -> None:
    item = {name: value for name, value in {**BASE, **changes}.items() if value is not None}
    config.apply(yaml.safe_dump({"version": 1, "policies": [item]}), actor="test")
    resolve.clear()


def spend(count: int = 5, **asked: Any) -> list[bool]:
    resolve.clear()
    named = {"project": "acme", "keys": {"chat": "1", "room": "1"}, "user": "1", "endpoint": "/a", "ip": "192.0.2.1"}
    return [bool(limits.check(**{**named, **asked})) for _ in range(count)]


@pytest.mark.parametrize(
    "change",
    [
        {"key_name": "room"},
        {"scope": "user", "key_name": None},
        {"scope": "global", "key_name": None},
        {"scope": "endpoint", "key_name": None, "match": "/a"},
        {"project": "acme"},
        {"algorithm": "sliding_window"},
        {"algorithm": "token_bucket"},
        {"algorithm": "calendar", "window": None, "period": "day"},
        {"window": "2h"},
    ],
    ids=str,
)
def test_a_change_of_what_is_counted_begins_anew(change: dict[str, Any]) -> None:
    configured()
    assert spend(6) == [True] * 5 + [False]
    configured(**change)
    assert spend(6) == [True] * 5 + [False]
    assert Policy.objects.get(name="p").counted_since is not None


def test_another_pattern_or_key_that_comes_back_begins_anew_too() -> None:
    configured()
    assert spend(6)[-1] is False
    configured(key_name="room")
    configured()
    assert spend(1) == [True], "what was counted before is no longer known"


@pytest.mark.parametrize("change", [{"limit": 7}, {"mode": "shadow"}, {"warn_at": [0.5]}, {"exempt": ["x"]}], ids=str)
def test_a_change_of_how_much_keeps_what_was_used(change: dict[str, Any]) -> None:
    configured()
    spend(4)
    configured(**change)
    (state,) = usage(Selection(policy="p"))
    assert state.used == 4 and Policy.objects.get(name="p").counted_since is None


def test_a_project_that_is_made_anew_finds_no_use() -> None:
    for scope, extra in {
        "user": {},
        "project": {},
        "endpoint": {"match": "/a"},
        "custom": {"key_name": "chat"},
    }.items():
        policy(f"by-{scope}", scope, 3, **extra)
    assert spend(4) == [True] * 3 + [False]
    Project.objects.get(slug="acme").delete()
    Project.objects.create(slug="acme")
    resolve.clear()
    assert usage(Selection()) == [], "the old counters are nobody's"
    assert spend(4) == [True] * 3 + [False]
    assert {state.used for state in usage(Selection())} == {3}


def test_an_idempotency_key_of_a_deleted_project_is_not_known() -> None:
    policy("all", "project", 3)
    first = api("check", project="acme").post("limits/check", {}, Idempotency_Key="k")
    assert first.json()["limits"][0]["remaining"] == 2
    Project.objects.get(slug="acme").delete()
    again = api("check", project="acme").post("limits/check", {"cost": 2}, Idempotency_Key="k")
    assert again.status_code == 200 and again.json()["limits"][0]["remaining"] == 1


def test_a_calendar_quota_is_restored_from_what_was_counted_since(valkey: redis.Redis) -> None:
    made = policy("daily", "project", 100, algorithm="calendar", window=None, period="day")
    resolve.clear()
    spend(7)
    Sampler().sample()
    valkey.flushall()
    assert restore_calendars() == 1 and usage(Selection(policy="daily"))[0].used == 7
    # Another definition from now on: what was counted in the hour before is no use of it.
    UsageRollup.objects.filter(policy=made).update(start=timezone.now() - timedelta(minutes=2))
    made.begin_anew()
    made.save()
    resolve.clear()
    valkey.flushall()
    assert restore_calendars() == 0
    assert limiter().limiter.transport.command("PING")


def test_the_burst_of_a_bucket_follows_the_limit_of_an_override() -> None:
    made = policy("bucket", "user", 10, algorithm="token_bucket", window=3600, burst=20)
    Override.objects.create(policy=made, key="big", limit=50, reason="load test")
    Override.objects.create(policy=made, key="none", limit=0, reason="blocked")
    Override.objects.create(policy=made, key="free", limit=None, reason="ours")
    assert [spend(1, user=user, cost=100)[0] for user in ("small", "big", "none", "free")] == [False, True, False, True]
    assert spend(1, user="big", cost=1) == [False], "five times the limit, five times the burst, no more"
    assert spend(1, user="small", cost=20) == [True]
    assert {state.key: state.used for state in usage(Selection(policy="bucket"))} == {"big": 100, "small": 20}
    answers = api("read").get("limits/usage", policy="bucket", key="big", project="acme").json()["results"]
    assert [one["ratio"] for one in answers] == [1.0]
