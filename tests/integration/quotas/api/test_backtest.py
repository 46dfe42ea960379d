"""`POST limits/backtest`: a policy applied to what SQL has recorded, before anybody saves it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from quotas.models import Override, Policy, Project, Tier, TierUser, UsageRollup
from quotas.runtime.counters import flush_all
from quotas.services import denials
from quotas.services.rollups import Sampler
from tests.integration.quotas.api.conftest import api, policy

HOUR = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=3)
NEW: dict[str, Any] = {
    "name": "per-user", "scope": "user", "algorithm": "fixed_window", "limit": 10, "window": "1h",
}  # fmt: skip


def recorded(stored: Policy, *used: int, project: str = "a", key: str = "u", denied: int = 0, **at: Any) -> None:
    """One minute's roll-up after another from `HOUR` on; `denied` goes to the last one."""
    for minute, level in enumerate(used):
        UsageRollup.objects.create(
            policy=stored, resolution=at.get("resolution", "minute"), start=HOUR + timedelta(minutes=minute),
            project=project, key=key, used=level, denied=denied if minute == len(used) - 1 else 0, limit=stored.limit,
        )  # fmt: skip


def ask(caller: Any, changed: dict[str, Any], **times: datetime) -> Any:
    begin, end = times.get("begin", HOUR), times.get("end", HOUR + timedelta(hours=2))
    body = {"policy": {**NEW, **changed}, "from": begin.isoformat(), "to": end.isoformat()}
    return caller.post("limits/backtest", body)


def denied(answer: Any) -> dict[tuple[str | None, str], int]:
    assert answer.status_code == 200, answer.content
    return {(row["project"], row["key"]): row["denied"] for row in answer.json()["results"]}


def test_real_checks_are_replayed_against_a_smaller_limit() -> None:
    flush_all()
    denials.counter.drain()  # other tests' refusals
    policy("per-user", "user", 10)
    a, b = api(project="a"), api(project="b")
    for _ in range(13):
        a.post("limits/check", {"user": "u"})
    b.post("limits/check", {"user": "u", "cost": 6})
    flush_all()
    Sampler().sample()
    now = timezone.now()
    times = {"begin": now - timedelta(minutes=2), "end": now + timedelta(minutes=2)}
    answer = ask(api(), {"limit": 4}, **times)
    assert denied(answer) == {("a", "u"): 9, ("b", "u"): 2}
    found = answer.json()
    assert found["total"] == {"subjects": 2, "subjects_denied": 2, "demand": 19, "denied": 11, "recorded_denied": 3}
    assert (found["source"], found["resolution"], found["unit"]) == ("per-user", "minute", "requests")
    assert found["results"][0]["first_denied_at"].endswith("Z") and found["approximate"]
    unchanged = denied(ask(api(), {}, **times))
    assert unchanged == {("a", "u"): 3, ("b", "u"): 0}, "what it did refuse, no more"
    assert denied(ask(b, {"limit": 4}, **times)) == {("b", "u"): 2}, "a project sees its own"
    assert not Policy.objects.filter(limit=4).exists(), "nothing was saved"


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"limit": 12}, 6),  # of 3, 6, 9 in three minutes of one hour
        ({"limit": 18}, 0),
        ({"limit": None}, 0),
        ({"limit": 0}, 18),
        ({"limit": 12, "algorithm": "sliding_window"}, 6),
        ({"limit": 5, "algorithm": "sliding_window", "window": "2m"}, 10),  # admits 3, 2, 3
        ({"limit": 5, "window": "1m"}, 5),
        ({"limit": 10, "window": "10s"}, 0),
        ({"limit": 6, "algorithm": "token_bucket", "window": "1m", "burst": 1}, 2),
        ({"limit": 12, "algorithm": "calendar", "window": None, "period": "day"}, 6),
    ],
)
def test_each_algorithm(changed: dict[str, Any], expected: int) -> None:
    recorded(policy("per-user", "user", 20), 3, 9, 18)
    assert denied(ask(api(), changed)) == {("a", "u"): expected}


def test_a_rolling_counter_is_read_as_what_came_in() -> None:
    stored = policy("per-user", "user", 100, algorithm="sliding_window", window=300)
    recorded(stored, 10, 20, 30, 40, 50, 50, 50, 50, 50, 50, key="steady")  # ten a minute: one may be missing
    recorded(stored, 50, 50, 50, 50, 50, 50, key="burst")  # fifty at once, which stay for five minutes
    minutely = policy("minutely", "user", 100, algorithm="sliding_window", window=60)
    recorded(minutely, 20, 20, key="short")
    rolling = {"limit": 25, "algorithm": "sliding_window", "window": "5m"}
    rows = {row["key"]: row for row in ask(api(), rolling).json()["results"]}
    assert {key: row["demand"] for key, row in rows.items()} == {"steady": 90, "burst": 50}
    assert rows["burst"]["denied"] == 25 and 40 <= rows["steady"]["denied"] <= 50
    short = ask(api(), {"name": "minutely", "limit": 15, "algorithm": "sliding_window", "window": "1m"})
    assert denied(short) == {("a", "short"): 10}


def test_what_was_used_before_the_time_counts_but_is_not_listed() -> None:
    recorded(policy("per-user", "user", 20), 8, 12)
    answer = ask(api(), {"limit": 9}, begin=HOUR + timedelta(minutes=1))
    assert denied(answer) == {("a", "u"): 3}
    assert answer.json()["total"]["demand"] == 4


def test_tiers_overrides_exemptions_and_projects_hold() -> None:
    stored = policy("per-user", "user", 20)
    gold = Tier.objects.create(name="gold")
    TierUser.objects.create(tier=gold, user="vip")
    Override.objects.create(policy=stored, key="w", limit=15, reason="contract")
    for project in ("a", "b"):
        Project.objects.create(slug=project)
        for key in ("u", "w", "vip"):
            recorded(stored, 16, project=project, key=key)
    every = {(project, key): 1 if key == "w" else 6 for project in "ab" for key in ("u", "w", "vip")}
    assert denied(ask(api(), {})) == every
    assert denied(ask(api(), {"project": "a"})) == {who: n for who, n in every.items() if who[0] == "a"}
    assert denied(ask(api(), {"tier": "gold"})) == {("a", "vip"): 6, ("b", "vip"): 6}
    assert set(denied(ask(api(), {"exempt": ["u", "w"], "project": "a"}))) == {("a", "vip")}


def test_refusals_of_another_unit_are_reported_but_are_no_traffic() -> None:
    recorded(policy("per-user", "user", 500, unit="tokens"), 400, denied=3)
    answer = ask(api(), {"unit": "tokens", "limit": 300})
    assert answer.json()["total"] == {
        "subjects": 1, "subjects_denied": 1, "demand": 400, "denied": 100, "recorded_denied": 3,
    }  # fmt: skip


def test_the_resolution_is_the_finest_that_is_still_kept() -> None:
    policy("per-user", "user", 20)
    now = timezone.now()
    for age, resolution in ((1, "minute"), (30, "hour"), (300, "day"), (3000, "day")):
        answer = ask(api(), {}, begin=now - timedelta(days=age), end=now)
        assert answer.json()["resolution"] == resolution


def test_times_that_are_out_of_all_bounds_are_cut_to_what_is_kept() -> None:
    policy("per-user", "user", 20)
    begin, end = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
    answer = ask(api(), {"algorithm": "calendar", "window": None, "period": "month"}, begin=begin, end=end)
    assert answer.status_code == 200
    assert answer.json()["from"] >= (timezone.now() - timedelta(days=731)).isoformat()
    assert ask(api(), {}, begin=begin, end=begin + timedelta(days=1)).json()["results"] == []


def test_nothing_comparable_is_said_so() -> None:
    policy("per-user", "user", 20)
    for changed in ({"scope": "ip"}, {"unit": "tokens"}, {"algorithm": "concurrency", "window": None}):
        answer = ask(api(), changed)
        assert answer.status_code == 422 and answer.json()["type"] == "/problems/nothing-recorded"


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "#/policy"),
        ({"policy": 5}, "#/policy"),
        ({"policy": {**NEW, "limit": -1}}, "#/policy/limit"),
        ({"policy": {**NEW, "limit": 1.5}}, "#/policy/limit"),
        ({"policy": {**NEW, "colour": "red"}}, "#/policy/colour"),
        ({"policy": {**NEW, "window": None}}, "#/policy"),
        ({"policy": {**NEW, "scope": "moon"}}, "#/policy/scope"),
        ({"policy": {**NEW, "tier": "gold"}}, "#/policy/tier"),
        ({"policy": {**NEW, "warn_at": [2]}}, "#/policy/warn_at/0"),
        ({"policy": {"name": "p"}}, "#/policy"),
        ({"from": "yesterday"}, "#/from"),
        ({"from": 5}, "#/from"),
        ({"to": None}, "#/to"),
        ({"to": "2026-01-01T00:00:00Z"}, "#/to"),
        ({"more": 1}, "#/more"),
    ],
)
def test_mistakes_are_named(body: dict[str, Any], pointer: str) -> None:
    policy("per-user", "user", 20)
    whole = {"policy": NEW, "from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z"}
    answer = api().post("limits/backtest", {**whole, **body} if body else {})
    assert answer.status_code == 400
    assert pointer in [error["pointer"] for error in answer.json()["errors"]]


def test_scope_and_projects() -> None:
    policy("per-user", "user", 20)
    Project.objects.create(slug="b")
    assert api("read", "check").post("limits/backtest", {}).status_code == 403
    assert ask(api("operate", project="a"), {"project": "b"}).status_code == 404
    assert ask(api("operate"), {"project": "nobody"}).status_code == 404
    assert ask(api("operate", project="a"), {}).status_code == 200
