"""Jobs that ended, per minute. A minute that is over is counted once and cached."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone

from queues.models import Job
from queues.states import Stage, Status

MINUTES = 30
SETTLED = timedelta(seconds=20)
"""Seconds after which a past minute is cached: late commits are in it by then."""

_over: dict[tuple[Any, datetime], dict[str, int]] = {}


def figures(projects: list[int] | None, pk: int | None) -> dict[str, Any]:
    now = timezone.now()
    this = now.replace(second=0, microsecond=0)
    key = tuple(projects) if projects is not None else None
    if len(_over) > 50 * MINUTES:
        _over.clear()
    bars = []
    for back in range(MINUTES - 1, -1, -1):
        minute = this - timedelta(minutes=back)
        counts = _over.get((key, minute))
        if counts is None:
            counts = _count(minute, projects)
            if minute + timedelta(minutes=1) + SETTLED < now:
                _over[key, minute] = counts
        bars.append((minute, counts))
    return chart(bars)


def _count(minute: datetime, projects: list[int] | None) -> dict[str, int]:
    jobs = Job.objects.filter(
        stage=Stage.DONE, finished_at__gte=minute, finished_at__lt=minute + timedelta(minutes=1)
    ).order_by()
    if projects is not None:
        jobs = jobs.filter(project__in=projects)
    # Counted here: for a GROUP BY, SQLite would scan the whole index by status.
    return Counter(jobs.values_list("status", flat=True))


def chart(bars: list[tuple[datetime, dict[str, int]]], width: float = 600.0, height: float = 150.0) -> dict[str, Any]:
    """Bars in an SVG's coordinates, stacked: completed below, dead and cancelled above."""
    top = max([sum(counts.values()) for _, counts in bars], default=0)
    scale = height / nice(top)
    step = width / max(len(bars), 1)
    drawn = []
    for index, (minute, counts) in enumerate(bars):
        base = height
        for status in (Status.COMPLETED, Status.DEAD, Status.CANCELLED):
            count = counts.get(status, 0)
            if count:
                tall = max(count * scale, 1.5)
                base -= tall
                drawn.append(
                    {
                        "x": round(index * step + step * 0.12, 1),
                        "y": round(base, 1),
                        "width": round(step * 0.76, 1),
                        "height": round(tall, 1),
                        "status": str(status),
                        "title": f"{minute:%H:%M}: {count:,} {status}",
                    }
                )
    total = {status: sum(counts.get(status, 0) for _, counts in bars) for status in ("completed", "dead", "cancelled")}
    return {
        "bars": drawn,
        "top": nice(top),
        "half": nice(top) / 2,
        "total": total,
        "minutes": len(bars),
        "first": bars[0][0] if bars else None,
        "last": bars[-1][0] if bars else None,
    }


def nice(top: int) -> int:
    """The next number above that is easy to read on an axis: 2, 5 or 10 times a power of ten."""
    size = 10
    while size < top:
        size *= 10
    for part in (5, 2):
        if size // part >= top and size // part >= 10:
            return size // part
    return size
