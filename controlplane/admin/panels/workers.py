"""Worker processes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from queues.liveness import is_alive
from queues.models import WorkerProcess
from quotas import clock

REMEMBERED = timedelta(minutes=10)
"""How long a lost worker is shown."""


def figures(projects: list[int] | None, pk: int | None) -> dict[str, Any]:
    now = clock.now()
    rows = []
    for worker in WorkerProcess.objects.filter(stopped_at=None, seen_at__gt=now - REMEMBERED).order_by("lane", "name"):
        lost = not is_alive(worker, now)
        share = round(100 * worker.busy / worker.places) if worker.places else 0
        rows.append({"worker": worker, "lost": lost, "share": min(100, share)})
    return {"rows": rows[:30], "more": max(0, len(rows) - 30)}
