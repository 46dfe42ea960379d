"""Jobs that ended, by the steps of the period. A minute that is over is counted once and cached; longer periods come from samples."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone

from controlplane.admin import charts
from controlplane.admin.panels import queue_history
from controlplane.admin.periods import Period
from queues.models import Job
from queues.states import Stage

SETTLED = timedelta(seconds=20)
"""Seconds after which a past minute is cached: late commits are in it by then."""
KEPT = 3_000
KINDS = ("completed", "dead", "cancelled")

_over: dict[tuple[Any, datetime], dict[str, int]] = {}


def figures(projects: list[int] | None, pk: int | None, period: Period) -> dict[str, Any]:
    now = timezone.now()
    starts = list(period.steps(now))
    if period.step == timedelta(minutes=1):
        counts = [_minute(start, projects, now) for start in starts]
    else:
        counts = [dict(step.counts) for step in queue_history.steps(period, projects, durations=False)]
    shown = [{kind: each.get(kind, 0) for kind in KINDS} for each in counts]
    drawn, top = charts.bars(shown, KINDS, starts, period)
    return {
        "bars": drawn,
        "top": top,
        "half": top / 2,
        "total": {kind: sum(each[kind] for each in shown) for kind in KINDS},
        "period": period,
        "first": charts.label(starts[0], period),
        "last": charts.label(now, period),
    }


def _minute(minute: datetime, projects: list[int] | None, now: datetime) -> dict[str, int]:
    key = (tuple(projects) if projects is not None else None, minute)
    if len(_over) > KEPT:
        _over.clear()
    counts = _over.get(key)
    if counts is None:
        counts = _count(minute, projects)
        if minute + timedelta(minutes=1) + SETTLED < now:
            _over[key] = counts
    return counts


def _count(minute: datetime, projects: list[int] | None) -> dict[str, int]:
    jobs = Job.objects.filter(
        stage=Stage.DONE, finished_at__gte=minute, finished_at__lt=minute + timedelta(minutes=1)
    ).order_by()
    if projects is not None:
        jobs = jobs.filter(project__in=projects)
    # Counted here: for a GROUP BY, SQLite would scan the whole index by status.
    return Counter(jobs.values_list("status", flat=True))
