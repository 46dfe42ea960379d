"""One policy, on its own page: present use, its history, who uses most and who is refused."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

from django.db.models import Q
from django.http import Http404
from django.utils import timezone

from controlplane.admin import charts
from controlplane.admin.panels.limits import ratio, row_of
from controlplane.admin.periods import Period
from quotas.admin.spans import spell_span
from quotas.engine.types import LimitState
from quotas.models import Override, Policy, Project
from quotas.services import adaptive, usage_history
from quotas.services.usage import Selection, usage
from quotas.services.usage_history import Consumer

ROWS = 10
READ = 2000
LINE, BARS = 90.0, 50.0
"""Heights of the chart's two parts: the use above, denials below."""

LONGEST = 30.0
"""Seconds for which a history is cached at most."""
KEPT = 200


@dataclass(frozen=True, slots=True)
class History:
    points: list[usage_history.Point]
    by_use: list[Consumer]
    by_denials: list[Consumer]


_known: dict[tuple[Any, ...], tuple[float, History]] = {}


def figures(projects: list[int] | None, pk: int | None, period: Period) -> dict[str, Any]:
    policy = Policy.objects.select_related("project").filter(pk=pk or 0).first()
    if policy is None:
        raise Http404
    slugs = None if projects is None else list(Project.objects.filter(pk__in=projects).values_list("slug", flat=True))
    states = [state for state in _states(policy, slugs) if state.limit is not None]
    states.sort(key=ratio, reverse=True)
    history = _history(policy, slugs, period)
    denials = {(one.project, one.key): one.denied for one in history.by_denials}
    own = _overridden(policy)
    rows = [_row(state, denials, own) for state in states]
    blocked = [row for row in rows if policy.mode == "enforce" and row["state"].remaining == 0]
    return {
        "rows": rows[:ROWS],
        "more": max(0, len(rows) - ROWS),
        "blocked": blocked[:ROWS],
        "blocked_more": max(0, len(blocked) - ROWS),
        "moved": adaptive.standings().get(policy.name),
        "policy": policy,
        "period": period,
        "chart": chart(history.points, period),
        "by_use": [_shown(one, own) for one in history.by_use],
        "by_denials": [_shown(one, own) for one in history.by_denials[:ROWS]],
    }


def forget() -> None:
    _known.clear()


def _history(policy: Policy, slugs: list[str] | None, period: Period) -> History:
    """Read again after a few seconds, by the length of the period's steps."""
    key = (policy.pk, None if slugs is None else tuple(slugs), period.name)
    known = _known.get(key)
    fresh = min(period.step.total_seconds() / 12, LONGEST)
    if known is not None and time.monotonic() - known[0] < fresh:
        return known[1]
    rows = usage_history.rows_of(policy, period.resolution, period.begin(timezone.now()), slugs)
    found = usage_history.consumers(rows)
    history = History(
        usage_history.points(policy, rows),
        usage_history.by_use(policy, rows, found, period.resolution, ROWS),
        usage_history.by_denials(found)[:READ],
    )
    if len(_known) >= KEPT:
        _known.clear()
    _known[key] = (time.monotonic(), history)
    return history


def chart(points: list[usage_history.Point], period: Period) -> dict[str, Any]:
    """A line of the highest use of any subject in per cent of its limit, and bars of denials."""
    now = timezone.now()
    starts = list(period.steps(now))
    shares: list[float | None] = [None] * len(starts)
    denied: list[dict[str, int]] = [{} for _ in starts]
    for point in points:
        at = period.position(point.start, now)
        if 0 <= at < len(starts):
            if point.share is not None:
                shares[at] = max(shares[at] or 0.0, point.share)
            denied[at] = {"denied": denied[at].get("denied", 0) + point.denied}
    drawn, top = charts.bars(denied, ["denied"], starts, period, base=LINE + 14 + BARS, height=BARS)
    return {
        **charts.line(shares, 1.0, height=LINE),
        "bars": drawn,
        "top": top,
        "denied": sum(point.denied for point in points),
        "highest": max((round(100 * share) for share in shares if share is not None), default=None),
        "first": charts.label(starts[0], period),
        "last": charts.label(now, period, zone=True),
        "any": bool(points),
    }


def _states(policy: Policy, slugs: Collection[str] | None) -> list[LimitState]:
    if slugs is None:
        return usage(Selection(policy=policy.name), most=READ)
    return [state for slug in slugs for state in usage(Selection(policy=policy.name, visible_to=slug), most=READ)]


def _overridden(policy: Policy) -> dict[tuple[str, str], Override]:
    """Active overrides by project (empty: every project) and subject."""
    active = Override.objects.filter(Q(until=None) | Q(until__gt=timezone.now()), policy=policy)
    rows = active.select_related("project").order_by("pk")[:READ]
    return {(row.project.slug if row.project else "", row.key): row for row in rows}


def _override_of(own: dict[tuple[str, str], Override], project: str, key: str) -> Override | None:
    return own.get((project, key)) or own.get(("", key))


def _row(
    state: LimitState, denials: dict[tuple[str, str], int], own: dict[tuple[str, str], Override]
) -> dict[str, Any]:
    return {
        **row_of(state),
        "denied": denials.get((state.partition, state.key), 0),
        "resets_in": spell_span(timedelta(seconds=state.reset_after)) if state.reset_after else "–",
        "override": _override_of(own, state.partition, state.key),
        "reset_query": _reset_query(state),
    }


def _shown(one: Consumer, own: dict[tuple[str, str], Override]) -> dict[str, Any]:
    return {"consumer": one, "override": _override_of(own, one.project, one.key)}


def _reset_query(state: LimitState) -> str:
    """The initial values of the reset dialog: this row's subject and its use."""
    given = {"key": state.key, "project": state.partition, "used": f"{state.used} of {state.limit} {state.unit}"}
    return urlencode({name: value for name, value in given.items() if value})
