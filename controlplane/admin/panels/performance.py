"""How long jobs waited and ran, and how many succeeded, over the chosen period."""

from __future__ import annotations

from typing import Any

from django.utils import timezone

from controlplane.admin import charts
from controlplane.admin.panels import ended_jobs, queue_history
from controlplane.admin.periods import Period
from controlplane.observability.durations import percentile

HEIGHT = 90.0


def figures(projects: list[int] | None, pk: int | None, period: Period) -> dict[str, Any]:
    found = queue_history.steps(period, projects)
    waits = [percentile(step.waits, 0.95) for step in found]
    runs = [percentile(step.runs, 0.95) for step in found]
    top = max([value for value in (*waits, *runs) if value is not None], default=0.0)
    return {
        **queue_history.summary(found, ended_jobs.by_step(period, projects, timezone.now())),
        "waits": charts.line(waits, top, height=HEIGHT),
        "runs": charts.line(runs, top, height=HEIGHT),
        "top": top,
        "any": any(step.sampled for step in found),
        "first": charts.label(found[0].start, period),
        "last": charts.label(timezone.now(), period, zone=True),
        "period": period,
    }
