"""The depth of each queue, by priority."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from django.db.models import Count
from django.utils import timezone

from queues.models import Job, Queue
from queues.selectors.queues import ready_since
from queues.states import IN_FLIGHT_STAGES, WAITING_STAGES
from quotas.engine import priorities


def figures(projects: list[int] | None, pk: int | None) -> dict[str, Any]:
    waiting = Job.objects.filter(stage__in=WAITING_STAGES).order_by()
    flying = Job.objects.filter(stage__in=IN_FLIGHT_STAGES).order_by()
    if projects is not None:
        waiting, flying = waiting.filter(project__in=projects), flying.filter(project__in=projects)
    depth: dict[int, dict[str, int]] = defaultdict(lambda: {"high": 0, "normal": 0, "low": 0})
    for queue_id, priority, count in waiting.values_list("queue", "priority").annotate(Count("id")):
        depth[queue_id][priorities.band(priority)] += count
    running = dict(flying.values_list("queue").annotate(Count("id")))
    oldest = ready_since(Job.objects.all() if projects is None else Job.objects.filter(project__in=projects))
    now = timezone.now()
    rows = []
    for queue in Queue.objects.order_by("name"):
        bands = depth[queue.pk]
        rows.append(
            {
                "pk": queue.pk,
                "name": queue.name,
                "state": queue.state,
                "reason": queue.paused_reason or queue.draining_reason,
                "bands": bands,
                "waiting": sum(bands.values()),
                "running": running.get(queue.pk, 0),
                "age": (now - oldest[queue.pk]).total_seconds() if queue.pk in oldest else None,
            }
        )
    most = max([row["waiting"] for row in rows], default=0) or 1
    for row in rows:
        row["shares"] = [(band, round(100 * count / most, 2)) for band, count in row["bands"].items() if count]
    return {"rows": sorted(rows, key=lambda row: (-row["waiting"], -row["running"], row["name"]))}
