"""One pool, live: which accounts take calls, and why and until when the others don't."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Count, Q, Sum
from django.http import Http404
from django.utils import timezone

from controlplane.admin import charts
from controlplane.admin.periods import Period
from controlplane.models import AccountSample
from quotas.admin.account_state import headroom, named
from quotas.models import Account, Pool
from quotas.runtime.connection import accounts
from quotas.snapshot import resolve

SHOWN = 100


CALLS, ABLE = 50.0, 90.0
"""Heights of the chart's two parts: the share of accounts that take calls above, calls below."""


def figures(projects: list[int] | None, pk: int | None, period: Period) -> dict[str, Any]:
    pool = Pool.objects.filter(pk=pk or 0).first()
    if pool is None:
        raise Http404
    config = resolve.snapshot().pools.get(pool.name)
    states = accounts().states(config.spec) if config is not None else []
    disabled = dict(Account.objects.filter(pool=pool).values_list("pk", "disabled_reason"))
    now, paused = timezone.now(), pool.paused_at is not None
    rows = [
        {
            "pk": state.id,
            "state": state,
            "named": named(state.state, paused=paused),
            "why": (disabled.get(int(state.id), "") or state.why) if state.state == "disabled" else state.why,
            "until": now + timedelta(seconds=state.until) if state.until else None,
            "health": round(100 * max(0.0, min(1.0, state.health))),
            "headroom": headroom(state.learned),
            "skips": sorted(state.skips.items(), key=lambda skip: -skip[1]),
        }
        for state in states
    ]
    able = [state for state in states if state.state in ("available", "paused")]
    skips: Counter[str] = Counter()
    for state in states:
        skips.update(state.skips)
    lost = len(states) - (0 if paused else len(able))
    return {
        "pool": pool,
        "lost": round(100 * lost / len(states)) if states else 0,
        "skips": skips.most_common(),
        "fallbacks": _fallbacks(pool),
        "chart": _chart(pool, period, now),
        "period": period,
        "rows": rows[:SHOWN],
        "more": max(0, len(rows) - SHOWN),
        "total": len(rows),
        "able": 0 if paused else len(able),
        "in_flight": sum(state.in_flight for state in states),
    }


def _fallbacks(pool: Pool) -> list[dict[str, Any]]:
    """The pools that are tried after this one, in their order, each with its accounts that take calls."""
    found = {
        one.name: one
        for one in Pool.objects.filter(name__in=pool.fallback or []).annotate(
            members=Count("accounts"),
            able=Count("accounts", filter=Q(accounts__state__in=["available", "paused"], accounts__enabled=True)),
        )
    }
    return [
        {"pool": one, "able": 0 if one.paused_at else one.able, "members": one.members}
        for name in pool.fallback or []
        if (one := found.get(name)) is not None
    ]


def _chart(pool: Pool, period: Period, now: datetime) -> dict[str, Any]:
    starts = list(period.steps(now))
    shares: list[float | None] = [None] * len(starts)
    calls = [{"successful": 0, "failed": 0} for _ in starts]
    samples = AccountSample.objects.filter(account__pool=pool, at__gte=period.begin(now)).order_by()
    rows = samples.values("at").annotate(
        good=Sum("succeeded"), bad=Sum("failed"), members=Count("id"),
        able=Count("id", filter=Q(state__in=["available", "paused"])),
    )  # fmt: skip
    for row in rows:
        at = period.position(row["at"], now)
        if 0 <= at < len(starts):
            share = row["able"] / row["members"]
            shares[at] = share if shares[at] is None else min(shares[at] or 0.0, share)
            calls[at]["successful"] += row["good"]
            calls[at]["failed"] += row["bad"]
    drawn, top = charts.bars(calls, ("successful", "failed"), starts, period, base=ABLE + 14 + CALLS, height=CALLS)
    return {
        **charts.line(shares, 1.0, height=ABLE),
        "bars": drawn,
        "top": top,
        "successful": sum(each["successful"] for each in calls),
        "failed": sum(each["failed"] for each in calls),
        "first": charts.label(starts[0], period),
        "last": charts.label(now, period, zone=True),
        "any": any(share is not None for share in shares),
    }
