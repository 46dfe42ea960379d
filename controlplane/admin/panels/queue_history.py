"""The samples of queues by the steps of a period: jobs that came and ended, depths of queues, durations of jobs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Max, QuerySet, Sum
from django.utils import timezone

from controlplane.admin.periods import Period
from controlplane.models import QueueSample
from controlplane.observability.durations import added, percentile

DEPTHS = ("high", "normal", "low")
COUNTS = ("enqueued", "completed", "dead", "cancelled")
READ = 20_000
"""Samples whose durations are read, the newest ones."""


@dataclass(slots=True)
class Step:
    """One step. Depths are the highest in it; counts are sums. `sampled`: whether it has samples."""

    start: datetime
    depth: dict[str, int] = field(default_factory=lambda: dict.fromkeys(DEPTHS, 0))
    counts: Counter[str] = field(default_factory=Counter)
    waits: Counter[str] = field(default_factory=Counter)
    runs: Counter[str] = field(default_factory=Counter)
    sampled: bool = False

    @property
    def waiting(self) -> int:
        return sum(self.depth.values())


def steps(
    period: Period, projects: list[int] | None, queue: int | None = None, *, durations: bool = True
) -> list[Step]:
    now = timezone.now()
    found = [Step(start) for start in period.steps(now)]
    for rows in _sources(period, now, projects, queue):
        sums = [Sum(name) for name in (*DEPTHS, *COUNTS)]
        for at, high, normal, low, *counts in rows.values_list("at").annotate(*sums).order_by("at"):
            step = _step_of(found, period, at, now)
            if step is None:
                continue
            step.sampled = True
            if high + normal + low >= step.waiting:
                step.depth = {"high": high, "normal": normal, "low": low}
            step.counts.update(dict(zip(COUNTS, counts, strict=True)))
        if durations:
            for at, waits, runs in rows.order_by("-at").values_list("at", "waits", "runs")[:READ]:
                if (step := _step_of(found, period, at, now)) is not None:
                    step.waits.update(waits)
                    step.runs.update(runs)
    return found


def depths_by_queue(period: Period, projects: list[int] | None) -> dict[int, list[float]]:
    """The depth of each queue that had any, step by step, in one query for each resolution."""
    now = timezone.now()
    count = period.span // period.step
    found: dict[int, list[float]] = {}
    for rows in _sources(period, now, projects, None):
        grouped = rows.values_list("queue", "at").annotate(depth=Sum("high") + Sum("normal") + Sum("low"))
        for queue, moment, depth in grouped.order_by("at"):
            at = period.position(moment, now)
            values = found.setdefault(queue, [0.0] * count)
            if 0 <= at < count:
                values[at] = max(values[at], float(depth))
    return found


def summary(found: list[Step], ended: Iterable[Mapping[str, int]] | None = None) -> dict[str, Any]:
    """Percentiles of waits and runs, and the share of ended jobs that completed, over all steps. `ended`: the counts
    of ended jobs by step, where they are not those of the samples."""
    waits, runs = added(step.waits for step in found), added(step.runs for step in found)
    counts = [step.counts for step in found] if ended is None else list(ended)
    completed, dead = (sum(each.get(kind, 0) for each in counts) for kind in ("completed", "dead"))
    return {
        "wait": (percentile(waits, 0.5), percentile(waits, 0.95)),
        "run": (percentile(runs, 0.5), percentile(runs, 0.95)),
        "ended": completed + dead,
        "success": round(100 * completed / (completed + dead), 1) if completed + dead else None,
    }


def _step_of(found: list[Step], period: Period, at: datetime, now: datetime) -> Step | None:
    position = period.position(at, now)
    return found[position] if 0 <= position < len(found) else None


def _sources(
    period: Period, now: datetime, projects: list[int] | None, queue: int | None
) -> Iterator[QuerySet[QueueSample]]:
    """Hours as far as they are summed up, and the minutes since then; or minutes only."""
    rows = QueueSample.objects.order_by()
    if projects is not None:
        rows = rows.filter(project__in=projects)
    if queue is not None:
        rows = rows.filter(queue=queue)
    begin = period.begin(now)
    if period.resolution == "hour":
        hours = QueueSample.objects.filter(resolution="hour", at__gte=begin)
        last = hours.aggregate(last=Max("at"))["last"]
        yield rows.filter(resolution="hour", at__gte=begin)
        begin = max(begin, last + timedelta(hours=1)) if last is not None else begin
    yield rows.filter(resolution="minute", at__gte=begin)
