"""One account, live: state and reason, health over time, provider-reported quota, skips."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from django.http import Http404
from django.utils import timezone

from controlplane.admin import charts
from controlplane.admin.periods import Period
from controlplane.models import AccountSample
from controlplane.observability.account_history import badness
from quotas.admin.account_state import named
from quotas.engine.account_state import AccountState
from quotas.engine.learned import AccountQuota
from quotas.models import Account
from quotas.runtime.connection import accounts
from quotas.services import last_responses
from quotas.snapshot import resolve
from quotas.times import from_unix

HEALTH, CALLS = 90.0, 50.0
"""Heights of the chart's two parts: health above, calls below."""


def figures(projects: list[int] | None, pk: int | None, period: Period) -> dict[str, Any]:
    row = Account.objects.select_related("pool").defer("credential").filter(pk=pk or 0).first()
    if row is None:
        raise Http404
    config = resolve.snapshot().pools.get(row.pool.name)
    states = accounts().states(config.spec) if config is not None else []
    state = next((one for one in states if one.id == str(row.pk)), AccountState(str(row.pk), row.name))
    now = timezone.now()
    samples = AccountSample.objects.filter(account=row, at__gte=period.begin(now)).order_by("at")
    return {
        "state": state,
        "named": named(state.state, paused=row.pool.paused_at is not None),
        "why": (row.disabled_reason or state.why) if state.state == "disabled" else state.why,
        "until": now + timedelta(seconds=state.until) if state.until else None,
        "left": round(state.until or 0),
        "failed_at": from_unix(state.last_error_at) if state.last_error_at else None,
        "percent": round(state.health * 100),
        "tone": _tone(state.health),
        "errors": sorted(state.errors.items()),
        "skips": sorted(state.skips.items()),
        "quotas": _quotas(state.learned),
        "answer": last_responses.of(str(row.pk)),
        "chart": chart(list(samples), period, now),
        "period": period,
    }


def _tone(share: float) -> str:
    return "good" if share >= 0.8 else "fair" if share >= 0.4 else "poor"


def _quotas(learned: Mapping[str, AccountQuota]) -> list[dict[str, Any]]:
    """The account's own quotas by unit, each followed by those of its models or resources."""
    rows = []
    for unit, quota in sorted(learned.items()):
        if quota.is_of_account:
            rows.append(_quota(unit, quota))
        rows += [_quota(f"{unit} of {name}", model) for name, model in sorted(quota.models.items())]
    return rows


def _quota(unit: str, quota: AccountQuota) -> dict[str, Any]:
    limit, remaining = quota.limit, quota.remaining
    share = None if not limit or remaining is None else max(0.0, min(1.0, remaining / limit))
    return {
        "unit": unit,
        "limit": limit,
        "remaining": remaining,
        "capacity": quota.capacity,
        "window": quota.window,
        "kind": {"bucket": "refills", "window": "resets"}.get(quota.kind or "", ""),
        "reset_after": quota.reset_after,
        "left": None if share is None else round(share * 100),
        "tone": "" if share is None else "good" if share > 0.3 else "fair" if share > 0.1 else "poor",
    }


def chart(samples: list[AccountSample], period: Period, now: datetime) -> dict[str, Any]:
    """A line of the lowest health of each step, bars of calls, and a band where the state was another than available."""
    starts = list(period.steps(now))
    health: list[float | None] = [None] * len(starts)
    worst = ["available"] * len(starts)
    calls = [{"successful": 0, "failed": 0} for _ in starts]
    for sample in samples:
        at = period.position(sample.at, now)
        if not 0 <= at < len(starts):
            continue
        health[at] = min(sample.health, 1.0 if health[at] is None else health[at] or 0.0)
        worst[at] = max(worst[at], sample.state, key=badness)
        calls[at]["successful"] += sample.succeeded
        calls[at]["failed"] += sample.failed
    drawn, top = charts.bars(calls, ("successful", "failed"), starts, period, base=HEALTH + 14 + CALLS, height=CALLS)
    step = charts.WIDTH / len(starts)
    marks = [
        {
            "x": round(at * step, 1),
            "width": round(step, 1),
            "state": state,
            "title": f"{charts.label(starts[at], period)}: {named(state)}, lowest health {round(100 * (health[at] or 0))}%",
        }
        for at, state in enumerate(worst)
        if state != "available"
    ]
    return {
        **charts.line(health, 1.0, height=HEALTH),
        "bars": drawn,
        "marks": marks,
        "top": top,
        "successful": sum(each["successful"] for each in calls),
        "failed": sum(each["failed"] for each in calls),
        "first": charts.label(starts[0], period),
        "last": charts.label(now, period, zone=True),
        "any": bool(samples),
    }
