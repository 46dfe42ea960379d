"""Counts, rates and recent results of jobs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Count, Min, QuerySet

from queues.models import Job
from queues.states import Stage, Status
from quotas import clock
from quotas.models import Project

RATE_SPAN = timedelta(seconds=60)
RECENT_SPAN = timedelta(minutes=5)
RECENT_LIMIT = 1000


@dataclass(frozen=True, slots=True)
class Spread:
    """Percentiles, in seconds."""

    p50: float
    p95: float


@dataclass(frozen=True, slots=True)
class RecentResults:
    """Of the last jobs that ended within `RECENT_SPAN`: their waits and runs, and the shares that completed and that
    died. None if there are none."""

    wait: Spread | None
    run: Spread | None
    success_rate: float | None
    failure_rate: float | None


def rate_of(rows: QuerySet[Job], within: timedelta = RATE_SPAN) -> float:
    """Jobs of `rows` that ended within that time, per second, since the first of them."""
    now = clock.now()
    ended = rows.filter(stage=Stage.DONE, finished_at__gt=now - within)
    found = ended.aggregate(count=Count("id"), first=Min("finished_at"))
    if not found["count"]:
        return 0.0
    span = max((now - found["first"]) / timedelta(seconds=1), 1.0)
    return float(found["count"] / span)


def recent_results(jobs: QuerySet[Job], now: datetime) -> RecentResults:
    """The results of the last of `jobs` that ended."""
    ended = jobs.filter(stage=Stage.DONE, finished_at__gt=now - RECENT_SPAN).order_by("-finished_at")
    rows = list(
        ended.values_list("status", "created_at", "first_started_at", "started_at", "finished_at")[:RECENT_LIMIT]
    )
    waits = [max((first - made).total_seconds(), 0.0) for _, made, first, _, _ in rows if first]
    runs = [max((end - begun).total_seconds(), 0.0) for _, _, _, begun, end in rows if begun and end]
    decided = [status for status, *_ in rows if status != Status.CANCELLED]
    completed = sum(status == Status.COMPLETED for status in decided)
    return RecentResults(
        wait=_spread(waits),
        run=_spread(runs),
        success_rate=round(completed / len(decided), 4) if decided else None,
        failure_rate=round(1 - completed / len(decided), 4) if decided else None,
    )


def _spread(values: list[float]) -> Spread | None:
    if not values:
        return None
    values.sort()
    return Spread(*(round(values[min(len(values) * share // 100, len(values) - 1)], 3) for share in (50, 95)))


OUT_OF_ORDER = timedelta(minutes=2)
"""A job with a lower id may be younger by at most this: jobs that are accepted together have the time at which that began."""


def created_after(rows: QuerySet[Job], moment: datetime) -> QuerySet[Job]:
    """Those of `rows` that were accepted after `moment`, without reading all older ones."""
    return rows.filter(created_at__gt=moment, id__gt=_id_floor(moment - OUT_OF_ORDER))


def _id_floor(edge: datetime) -> int:
    """An id below those since `edge`, found in a few steps over the primary key: the table has no index by time."""
    newest = Job.objects.order_by("-id").values_list("id", flat=True).first() or 0
    step = 1024
    floor = newest
    while floor > 0:
        floor = max(newest - step, 0)
        at = Job.objects.filter(id__lte=floor).order_by("-id").values_list("created_at", flat=True).first()
        if at is None or at < edge:
            break
        step *= 2
    return floor


def job_counts(project: Project | None = None) -> dict[str, int]:
    """Jobs by status, over all that is kept."""
    rows = Job.objects.all() if project is None else Job.objects.filter(project=project)
    counted = dict(rows.order_by().values_list("status").annotate(count=Count("id")))
    return {status: counted.get(status, 0) for status in Status.values}
