"""One account, live: state and reason, health over time, provider-reported quota, skips."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from django.http import Http404
from django.utils import timezone

from controlplane.admin.panels.throughput import nice
from controlplane.models import AccountSample
from quotas.admin.account import named
from quotas.engine.learned import AccountQuota
from quotas.engine.types import AccountState
from quotas.models import Account
from quotas.runtime.connection import accounts
from quotas.services import last_responses
from quotas.snapshot import resolve

MINUTES = 120
WIDTH, HEALTH, CALLS = 600.0, 90.0, 50.0
"""The chart in its own coordinates: health above, calls below."""


def figures(projects: list[int] | None, pk: int | None) -> dict[str, Any]:
    row = Account.objects.select_related("pool").defer("credential").filter(pk=pk or 0).first()
    if row is None:
        raise Http404
    config = resolve.snapshot().pools.get(row.pool.name)
    states = accounts().states(config.spec) if config is not None else []
    state = next((one for one in states if one.id == str(row.pk)), AccountState(str(row.pk), row.name))
    now = timezone.now()
    samples = AccountSample.objects.filter(account=row, at__gt=now - timedelta(minutes=MINUTES)).order_by("at")
    return {
        "state": state,
        "named": named(state.state, paused=row.pool.paused_at is not None),
        "why": (row.disabled_reason or state.why) if state.state == "disabled" else state.why,
        "until": now + timedelta(seconds=state.until) if state.until else None,
        "left": round(state.until or 0),
        "failed_at": row.last_error_at,
        "percent": round(state.health * 100),
        "tone": _tone(state.health),
        "errors": sorted(state.errors.items()),
        "skips": sorted(state.skips.items()),
        "quotas": _quotas(state.learned),
        "answer": last_responses.of(str(row.pk)),
        "chart": chart(list(samples), now.replace(second=0, microsecond=0)),
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


def chart(samples: list[AccountSample], now: datetime) -> dict[str, Any]:
    """A line of the lowest health of each minute and bars of calls, for the last two hours."""
    step = WIDTH / MINUTES
    start = now - timedelta(minutes=MINUTES)
    top = nice(max([sample.succeeded + sample.failed for sample in samples], default=0))
    lines: list[list[str]] = []
    bars, marks, last = [], [], -2
    for sample in samples:
        minute = round((sample.at - start) / timedelta(minutes=1))
        x = minute * step
        if minute != last + 1:
            lines.append([])  # no sample in between: break the line
        last = minute
        lines[-1].append(f"{x + step / 2:.1f},{HEALTH * (1 - max(0.0, min(1.0, sample.health))):.1f}")
        title = (
            f"{sample.at:%H:%M}: health {sample.health:.2f}, {sample.succeeded:,} successful, {sample.failed:,} failed"
        )
        if sample.state != "available":
            state = sample.state.replace("_", " ")
            marks.append(
                {"x": round(x, 1), "width": round(step, 1), "state": sample.state, "title": f"{title}; {state}"}
            )
        base = HEALTH + 14 + CALLS
        for count, kind in ((sample.succeeded, "completed"), (sample.failed, "dead")):
            if count:
                tall = max(count * CALLS / top, 1.0)
                base -= tall
                bars.append(
                    {"x": round(x + step * 0.1, 1), "y": round(base, 1), "width": round(step * 0.8, 1),
                     "height": round(tall, 1), "kind": kind, "title": title}
                )  # fmt: skip
    return {
        "lines": [" ".join(points) for points in lines if len(points) > 1],
        "dots": [points[0].split(",") for points in lines if len(points) == 1],
        "bars": bars,
        "marks": marks,
        "top": top,
        "first": start,
        "last": now,
        "any": bool(samples),
    }
