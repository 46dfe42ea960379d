"""The chart of jobs that ended, by the steps of the period."""

from __future__ import annotations

from typing import Any

from django.utils import timezone

from controlplane.admin import charts
from controlplane.admin.panels import ended_jobs
from controlplane.admin.periods import Period

KINDS = ("completed", "dead", "cancelled")


def figures(projects: list[int] | None, pk: int | None, period: Period) -> dict[str, Any]:
    now = timezone.now()
    starts = list(period.steps(now))
    shown = [{kind: each.get(kind, 0) for kind in KINDS} for each in ended_jobs.by_step(period, projects, now)]
    drawn, top = charts.bars(shown, KINDS, starts, period)
    return {
        "bars": drawn,
        "top": top,
        "half": top / 2,
        "total": {kind: sum(each[kind] for each in shown) for kind in KINDS},
        "period": period,
        "first": charts.label(starts[0], period),
        "last": charts.label(now, period, zone=True),
    }
