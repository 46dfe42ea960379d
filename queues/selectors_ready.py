"""Since when the oldest ready job of each queue has been ready, without reading every ready job."""

from __future__ import annotations

from datetime import datetime

from django.db.models import QuerySet

from queues.models import Job
from queues.ready_groups import groups_waiting
from queues.states import Stage


def ready_since(rows: QuerySet[Job]) -> dict[int, datetime]:
    """By queue, since when the one of `rows` is ready to run that has been so for the longest time. A retry is ready
    from its time on, a replayed job from its replay on.

    A job that was ready from the start is the oldest of its group if it has the lowest ID; the others are few and have
    an index of their own. So the cost grows with the number of groups and not with the number of jobs.
    """
    ready = rows.filter(stage=Stage.READY)
    groups = groups_waiting()
    times: dict[int, list[datetime | None]] = {queue_id: [] for queue_id, *_ in groups}
    for queue_id, priority, project_id, pool in groups:
        group = ready.filter(queue_id=queue_id, priority=priority, project_id=project_id, pool=pool, not_before=None)
        times[queue_id].append(group.order_by("id").values_list("created_at", flat=True).first())
    for queue_id, found in times.items():
        again = ready.filter(queue_id=queue_id, not_before__isnull=False).order_by("not_before")
        found.append(again.values_list("not_before", flat=True).first())
    known = {queue_id: [time for time in found if time is not None] for queue_id, found in times.items()}
    return {queue_id: min(found) for queue_id, found in known.items() if found}
