"""Jobs that ended, by the steps of a period: the one source of the throughput chart and the success rate.

A minute that is over is counted once and cached; longer periods come from samples.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from controlplane.admin.panels import queue_history
from controlplane.admin.periods import Period
from queues.models import Job
from queues.states import Stage

SETTLED = timedelta(seconds=20)
"""Seconds after which a past minute is cached: late commits are in it by then."""
KEPT = 3_000

_over: dict[tuple[Any, datetime], dict[str, int]] = {}


def by_step(period: Period, projects: list[int] | None, now: datetime) -> list[Mapping[str, int]]:
    """The number of jobs that ended in each step, by status."""
    if period.step != timedelta(minutes=1):
        return [step.counts for step in queue_history.steps(period, projects, durations=False)]
    return [_minute(start, projects, now) for start in period.steps(now)]


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
