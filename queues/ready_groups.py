"""The groups of ready jobs: those that share queue, priority, project and pool."""

from __future__ import annotations

from queues.models import Job
from queues.states import GroupKey, Stage


def groups_waiting() -> list[GroupKey]:
    """Every group with a ready job, by one index look-up each, however many jobs wait."""
    found: list[GroupKey] = []
    columns = ("queue_id", "priority", "project_id", "pool")
    rows = Job.objects.filter(stage=Stage.READY).order_by(*columns)
    head = rows.values_list(*columns).first()
    while head is not None:
        found.append(GroupKey(*head))
        queue_id, priority, project_id, pool = head
        # From the narrowest step to the widest: the next pool, else the next project, priority, queue.
        head = (
            rows.filter(queue_id=queue_id, priority=priority, project_id=project_id, pool__gt=pool)
            .values_list(*columns)
            .first()
            or rows.filter(queue_id=queue_id, priority=priority, project_id__gt=project_id)
            .values_list(*columns)
            .first()
            or rows.filter(queue_id=queue_id, priority__gt=priority).values_list(*columns).first()
            or rows.filter(queue_id__gt=queue_id).values_list(*columns).first()
        )
    return found
