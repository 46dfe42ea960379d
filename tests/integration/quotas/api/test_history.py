"""Use over time, thresholds, and calendar quotas that survive the loss of Redis."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import redis
from django.utils import timezone

from quotas import events
from quotas.models import ThresholdMark, UsageRollup
from quotas.runtime.counters import flush_all
from quotas.services import active_subjects, denials, health, rollups
from quotas.services.rollups import Sampler
from quotas.snapshot import resolve
from quotas.testing import capture_events
from tests.integration.quotas.api.conftest import api, policy


@pytest.fixture
def crossed() -> Iterator[list[events.ThresholdCrossed]]:
    with capture_events(events.ThresholdCrossed) as crossed:
        yield crossed


def sample(sampler: Sampler, **moved: float) -> int:
    resolve.clear()
    return sampler.sample(timezone.now() + timedelta(**moved))


def test_highest_use_is_kept_by_minute_hour_and_day() -> None:
    policy("per-user", "user", 10)
    caller, sampler = api(project="acme"), Sampler()
    caller.post("limits/check", {"user": "u", "cost": 4})
    assert sample(sampler) == 3
    assert sample(sampler) in (0, 1), "what did not rise is not written again, but in a new minute"
    caller.post("limits/check", {"user": "u", "cost": 2})
    sample(sampler)
    caller.post("limits/reset", {"policy": "per-user", "reason": "test"})
    sample(sampler)
    rows = caller.get("limits/usage/history", resolution="day").json()["results"]
    assert [(row["policy"], row["key"], row["used"], row["limit"]) for row in rows] == [("per-user", "u", 6, 10)]
    assert rows[0]["ratio"] == 0.6 and rows[0]["start"].endswith("T00:00:00.000Z")
    later = {"from": (timezone.now() + timedelta(days=2)).isoformat(), "resolution": "day"}
    assert caller.get("limits/usage/history", **later).json()["results"] == []
    assert api(project="other").get("limits/usage/history", resolution="day").json()["results"] == []
    assert caller.get("limits/usage/history", resolution="year").status_code == 400
    backwards = caller.get("limits/usage/history", **{"from": "2026-02-02T00:00:00Z", "to": "2026-02-01T00:00:00Z"})
    assert backwards.status_code == 400 and backwards.json()["errors"][0]["pointer"] == "?to"


def test_refusals_are_counted_in_the_process_and_added_up_by_who_samples() -> None:
    flush_all()
    denials.counter.drain()  # other tests' refusals
    policy("per-user", "user", 2)
    policy("trial", "project", 1, mode="shadow")
    caller = api(project="acme")
    for _ in range(2):
        caller.post("limits/check", {"user": "u"})
    for _ in range(3):
        assert caller.post("limits/check", {"user": "u"}).status_code == 429
    caller.post("limits/check-batch", {"checks": [{"user": "u"}, {"user": "u", "dry_run": True}, {"user": "v"}]})
    for refused in (6, 7):  # u was refused four times; the shadow policy let two of six checks past
        flush_all()
        sample(Sampler())
        rows = caller.get("limits/usage/history", resolution="hour").json()["results"]
        found = {(row["policy"], row["key"]): (row["used"], row["denied"]) for row in rows}
        assert found == {
            ("per-user", "u"): (2, refused - 2),
            ("per-user", "v"): (1, 0),
            ("trial", "acme"): (1, refused),
        }
        caller.post("limits/check", {"user": "u"})


def test_old_rows_are_pruned() -> None:
    per_user = policy("per-user", "user", 10)
    old = timezone.now() - timedelta(days=3)
    for resolution in ("minute", "hour"):
        UsageRollup.objects.create(policy=per_user, resolution=resolution, start=old, key="u", used=1)
    sample(Sampler())
    assert list(UsageRollup.objects.values_list("resolution", flat=True)) == ["hour"]


def test_each_crossing_is_one_event_also_after_a_restart(crossed: list[events.ThresholdCrossed]) -> None:
    policy("per-user", "user", 10, warn_at=[0.6, 0.8, 0.95])
    caller = api(project="acme")
    for cost, shares in ((5, []), (1, [0.6]), (1, []), (3, [0.95])):
        caller.post("limits/check", {"user": "u", "cost": cost})
        del crossed[:]
        for _ in range(2):
            sample(Sampler())
        assert [event.share for event in crossed] == shares
    event_facts = ThresholdMark.objects.get()
    assert (event_facts.key, event_facts.share) == ("u", 0.95)
    caller.post("limits/reset", {"policy": "per-user", "reason": "test"})
    sample(Sampler())
    assert not ThresholdMark.objects.exists()
    caller.post("limits/check", {"user": "u", "cost": 10})
    del crossed[:]
    sample(Sampler())
    assert [(event.share, event.used, event.project) for event in crossed] == [(0.95, 10, "acme")]


def test_resets_and_new_periods_emit_crossings_again_and_a_falling_use_does_not(
    crossed: list[events.ThresholdCrossed],
) -> None:
    policy("hourly", "user", 10, unit="tokens", warn_at=[0.5, 0.8], window=365 * 86400)
    caller = api(project="acme")

    def crossings(tokens: int) -> list[float]:
        held.append(caller.post("limits/check", {"user": "u", "cost": {"tokens": tokens}}).json()["reservation"])
        del crossed[:]
        sample(Sampler())
        return [event.share for event in crossed]

    held: list[str] = []
    assert crossings(9) == [0.8]
    # Reset and used again before anybody looked: its use was never seen below the mark.
    caller.post("limits/reset", {"policy": "hourly", "key": "u", "reason": "test"})
    assert crossings(6) == [0.5]
    assert crossings(3) == [0.8]
    caller.post("limits/settle", {"reservation": held[-1], "actual": {"tokens": 0}})
    assert crossings(0) == [], "it fell to 60 %: that is no crossing"
    assert crossings(3) == [0.8]
    ThresholdMark.objects.update(since=timezone.now() - timedelta(days=366))
    assert crossings(0) == [0.8], "what was crossed in the last period"
    assert crossings(0) == []


def test_more_subjects_than_a_sample_reads_are_kept_and_listed_too(
    crossed: list[events.ThresholdCrossed], valkey: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    flush_all()
    active_subjects.counter.drain()
    monkeypatch.setattr(rollups, "SUBJECTS", 3)
    policy("daily", "user", 100, algorithm="calendar", window=None, period="day")
    policy("hourly", "user", 10)
    caller = api(project="acme")
    for n in range(10):
        caller.post("limits/check", {"user": f"u-{n}", "cost": 1 + n})
    health.flush()
    flush_all()
    sample(Sampler())
    days = UsageRollup.objects.filter(policy__name="daily", resolution="day")
    assert dict(days.values_list("key", "used")) == {f"u-{n}": 1 + n for n in range(10)}
    assert {event.key for event in crossed if event.policy == "hourly"} == {f"u-{n}" for n in range(5, 10)}
    valkey.flushall()
    health.flush()
    used = {
        n: caller.post("limits/check", {"user": f"u-{n}", "cost": 0}).json()["limits"][0]["remaining"]
        for n in range(10)
    }
    assert used == {n: 99 - n for n in range(10)}


def test_calendar_quotas_go_on_after_redis_lost_its_memory(valkey: redis.Redis) -> None:
    policy("daily", "project", 100, algorithm="calendar", window=None, period="day", timezone="Europe/Berlin")
    policy("hourly", "project", 100)
    caller = api(project="acme")
    health.flush()
    caller.post("limits/check", {"cost": 70})
    sample(Sampler())
    valkey.flushall()
    health.flush()
    remaining: dict[str, Any] = {
        state["policy"]: state["remaining"] for state in caller.post("limits/check", {"dry_run": True}).json()["limits"]
    }
    assert remaining == {"daily": 30, "hourly": 100}
    health.flush()
    assert caller.post("limits/check", {"cost": 30}).status_code == 200
    assert caller.post("limits/check", {"cost": 1}).status_code == 429
