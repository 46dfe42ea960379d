"""The depth of each queue, by priority."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import datetime
from typing import Any

from django.db.models import Count
from django.utils import timezone

from controlplane.admin.panels.queue_history import depths_by_queue
from controlplane.admin.panels.queue_states import pauses, utilisation
from controlplane.admin.periods import Period
from queues.models import Job, Queue
from queues.selectors.jobs import RATE_SPAN, created_after
from queues.selectors.queues import ready_since
from queues.states import IN_FLIGHT_STAGES, WAITING_STAGES, Stage
from quotas.admin import sparkline
from quotas.engine import priorities


def figures(projects: list[int] | None, pk: int | None, period: Period) -> dict[str, Any]:
    waiting = Job.objects.filter(stage__in=WAITING_STAGES).order_by()
    flying = Job.objects.filter(stage__in=IN_FLIGHT_STAGES).order_by()
    if projects is not None:
        waiting, flying = waiting.filter(project__in=projects), flying.filter(project__in=projects)
    depth: dict[int, dict[str, int]] = defaultdict(lambda: {"high": 0, "normal": 0, "low": 0})
    for queue_id, priority, count in waiting.values_list("queue", "priority").annotate(count=Count("*")):
        depth[queue_id][priorities.band(priority)] += count
    running = dict(flying.values_list("queue").annotate(count=Count("*")))
    oldest = ready_since(Job.objects.all() if projects is None else Job.objects.filter(project__in=projects))
    now = timezone.now()
    rows = []
    queues = list(Queue.objects.order_by("name"))
    paused = pauses(queues)
    history = depths_by_queue(period, projects)
    rates = _rates(projects, now)
    for queue in queues:
        bands = depth[queue.pk]
        rows.append(
            {
                "pk": queue.pk,
                "name": queue.name,
                "state": queue.state,
                "pause": paused.get(queue.pk),
                "concurrency": queue.concurrency,
                "used": utilisation(queue, running.get(queue.pk, 0)),
                "spark": sparkline.points(history.get(queue.pk, [])),
                "rate_in": rates["in"].get(queue.pk, 0.0),
                "rate_out": rates["out"].get(queue.pk, 0.0),
                "bands": bands,
                "waiting": sum(bands.values()),
                "running": running.get(queue.pk, 0),
                "age": (now - oldest[queue.pk]).total_seconds() if queue.pk in oldest else None,
            }
        )
    most = max([row["waiting"] for row in rows], default=0) or 1
    for row in rows:
        row["shares"] = [(band, round(100 * count / most, 2)) for band, count in row["bands"].items() if count]
    rows.sort(key=lambda row: (-row["waiting"], -row["running"], row["name"]))
    return {"rows": rows, "period": period, "platform": projects is None}


def _rates(projects: list[int] | None, now: datetime) -> dict[str, dict[int, float]]:
    """Jobs per second that came and that ended in the last minute, by queue."""
    since = now - RATE_SPAN
    came = created_after(Job.objects.all(), since).order_by()
    ended = Job.objects.filter(stage=Stage.DONE, finished_at__gt=since).order_by()
    if projects is not None:
        came, ended = came.filter(project__in=projects), ended.filter(project__in=projects)
    # Counted here: for a GROUP BY, SQLite would scan a whole index.
    counts = {
        "in": Counter(came.values_list("queue", flat=True)),
        "out": Counter(ended.values_list("queue", flat=True)),
    }
    seconds = RATE_SPAN.total_seconds()
    return {way: {queue: count / seconds for queue, count in each.items()} for way, each in counts.items()}
