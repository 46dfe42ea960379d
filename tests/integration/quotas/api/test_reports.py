"""What users of other limiters have reported about counting, tried over REST and from Python."""

from __future__ import annotations

import uuid
from decimal import Decimal
from typing import Any

import pytest

from quotas import limits
from quotas.models import Project
from quotas.snapshot import resolve
from tests.integration.quotas.api.conftest import api, policy


def remaining(answer: Any, name: str) -> int:
    return int(next(state["remaining"] for state in answer.json()["limits"] if state["policy"] == name))


def test_several_windows_of_one_subject_are_charged_together_or_not_at_all() -> None:
    for name, limit, window in (("second", 2, 1), ("minute", 3, 60), ("day", 100, 86400)):
        policy(name, "user", limit, window=window, algorithm="sliding_window")
    key = api("check", project="acme")
    assert [key.post("limits/check", {"user": "u"}).status_code for _ in range(3)] == [200, 200, 429]
    assert remaining(key.post("limits/check", {"user": "u", "dry_run": True}), "day") == 98


@pytest.mark.parametrize(
    "cost",
    [1.5, "1", True, -1, 2**53, float("nan"), Decimal("1"), Decimal("1.5"), {"tokens": 1.0}, {"tokens": "5"}, {"tokens": None}, []],
    ids=repr,
)  # fmt: skip
def test_a_cost_that_is_no_count_charges_nothing_and_is_named(cost: Any) -> None:
    policy("few", "user", 5)
    policy("tokens", "user", 5, unit="tokens")
    with pytest.raises((ValueError, TypeError)) as refused:
        limits.check(user="u", cost=cost)
    assert "cost" in str(refused.value)
    assert limits.check(user="u", dry_run=True).limits[0].remaining == 5


@pytest.mark.parametrize("user", [17, uuid.UUID(int=5), "17"], ids=repr)
def test_subjects_of_any_type_from_python(user: Any) -> None:
    policy("per-user", "user", 1)
    policy("per-chat", "custom", 1, key_name="chat")
    assert limits.check(user=user, keys={"chat": user})
    denied = limits.check(user=str(user), keys={"chat": str(user)})
    assert not denied and {state.key for state in denied.limits} == {str(user)}


def test_a_refund_of_more_than_was_reserved_is_none(valkey: Any) -> None:
    policy("tokens", "user", 1000, unit="tokens")
    key = api("check", project="acme")
    for reserved, used in ((800, 0), (800, 800), (10, 1000)):
        answer = key.post("limits/check", {"user": "u", "cost": {"tokens": reserved}})
        assert answer.status_code == 200
        key.post("limits/settle", {"reservation": answer.json()["reservation"], "actual": {"tokens": used}})
    left = key.post("limits/check", {"user": "u", "cost": {"tokens": 0}, "dry_run": True})
    assert remaining(left, "tokens") == 0
    for actual in ({"tokens": -5}, {"tokens": 1.5}, {"tokens": "5"}, {"token": 5}):
        answer = key.post("limits/check", {"user": "v", "cost": {"tokens": 1}})
        refused = key.post("limits/settle", {"reservation": answer.json()["reservation"], "actual": actual})
        assert refused.status_code == 400, actual


@pytest.mark.parametrize("body", [{"user": " "}, {"user": "ü" * 1024}, {"user": "a:b{c}*\n"}, {"user": "*"}])
def test_each_text_is_a_subject_of_its_own(body: Any) -> None:
    policy("per-user", "user", 1)
    key = api("check", project="acme")
    assert [key.post("limits/check", body).status_code for _ in range(2)] == [200, 429]
    assert key.post("limits/check", {"user": "somebody else"}).status_code == 200


def test_subjects_that_look_alike_are_apart() -> None:
    policy("per-user", "user", 1)
    key = api("check", project="acme")
    names = ["user", "User", "user ", "uſer", "us\u0065\u0301r", "us\u00e9r", "user\u200b", "ｕｓｅｒ"]
    assert [key.post("limits/check", {"user": name}).status_code for name in names] == [200] * len(names)


def test_one_project_s_user_is_not_another_s() -> None:
    policy("per-user", "user", 1)
    assert api("check", project="acme").post("limits/check", {"user": "u"}).status_code == 200
    assert api("check", project="beta").post("limits/check", {"user": "u"}).status_code == 200
    assert api("check", project="acme").post("limits/check", {"user": "u"}).status_code == 429


@pytest.mark.parametrize("change", [{"limit": 5}, {"limit": 20}, {"burst": 30}])
def test_a_changed_limit_keeps_what_was_used(change: dict[str, int]) -> None:
    held = policy("bucket", "user", 10, algorithm="token_bucket", window=36000)
    key = api("check", project="acme")
    for _ in range(4):
        key.post("limits/check", {"user": "u"})
    for name, value in change.items():
        setattr(held, name, value)
    held.save()
    resolve.clear()
    capacity = change.get("burst") or change["limit"]
    left = remaining(key.post("limits/check", {"user": "u", "dry_run": True, "cost": 1}), "bucket")
    assert 0 <= left <= capacity - 4


def test_a_removed_and_renewed_project_begins_anew() -> None:
    policy("each", "project", 1)
    key = api("check", project="acme")
    assert [key.post("limits/check").status_code for _ in range(2)] == [200, 429]
    Project.objects.filter(slug="acme").delete()
    assert api("check", project="acme").post("limits/check").status_code == 200


def test_an_exhausted_policy_of_another_unit_refuses_nothing_that_costs_none_of_it() -> None:
    policy("tokens", "user", 10, unit="tokens")
    key = api("check", project="acme")
    assert key.post("limits/check", {"user": "u", "cost": {"tokens": 10}}).status_code == 200
    assert key.post("limits/check", {"user": "u", "cost": {"requests": 1}}).status_code == 200
    assert key.post("limits/check", {"user": "u", "cost": {"tokens": 1}}).status_code == 429


def test_identical_repeats_with_one_key_are_charged_once_and_denials_are_asked_anew() -> None:
    held = policy("few", "user", 1)
    key = api("check", project="acme")
    assert [key.post("limits/check", {"user": "u"}, Idempotency_Key="a").status_code for _ in range(3)] == [200] * 3
    assert key.post("limits/check", {"user": "u"}, Idempotency_Key="b").status_code == 429
    held.limit = 2
    held.save()
    assert key.post("limits/check", {"user": "u"}, Idempotency_Key="b").status_code == 200


def test_a_batch_beyond_its_limits_admits_exactly_the_limit() -> None:
    policy("few", "user", 7)
    key = api("check", project="acme")
    answer = key.post("limits/check-batch", {"checks": [{"user": "u"}] * 100}).json()["results"]
    statuses = [one["status"] for one in answer]
    assert statuses == [200] * 7 + [429] * 93
