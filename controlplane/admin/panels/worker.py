"""One worker, on its own page: what it runs now."""

from __future__ import annotations

from typing import Any

from django.http import Http404
from django.utils import timezone

from queues.liveness import is_alive
from queues.models import Job, WorkerProcess
from queues.states import Stage
from quotas import clock
from quotas.admin.spans import spell_span

SHOWN = 100


def figures(projects: list[int] | None, pk: int | None) -> dict[str, Any]:
    worker = WorkerProcess.objects.filter(pk=pk or 0).first()
    if worker is None:
        raise Http404
    now = timezone.now()
    jobs = Job.objects.filter(stage=Stage.RUNNING, worker=worker.name).select_related("queue", "project")
    shown = list(
        jobs.only("uid", "type", "user", "started_at", "queue__name", "project__slug").order_by("started_at")[
            : SHOWN + 1
        ]
    )
    return {
        "worker": worker,
        "lost": worker.stopped_at is None and not is_alive(worker, clock.now()),
        "jobs": [
            {"job": job, "for": spell_span(now - job.started_at) if job.started_at else "–"} for job in shown[:SHOWN]
        ],
        "more": len(shown) > SHOWN,
        "up": spell_span((worker.stopped_at or now) - worker.started_at),
    }
