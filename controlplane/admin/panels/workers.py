"""Who works."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.utils import timezone

from queues.admin.worker import FRESH
from queues.models import WorkerProcess

REMEMBERED = timedelta(minutes=10)
"""A lost worker is shown for so long."""


def figures(projects: list[int] | None, pk: int | None) -> dict[str, Any]:
    now = timezone.now()
    rows = []
    for worker in WorkerProcess.objects.filter(stopped_at=None, seen_at__gt=now - REMEMBERED).order_by("lane", "name"):
        lost = worker.seen_at < now - FRESH
        share = round(100 * worker.busy / worker.places) if worker.places else 0
        rows.append({"worker": worker, "lost": lost, "share": min(100, share)})
    return {"rows": rows[:30], "more": max(0, len(rows) - 30)}
