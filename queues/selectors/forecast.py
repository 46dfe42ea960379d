"""What limits some jobs now, and when the last of them ends."""

from __future__ import annotations

from datetime import datetime

from django.db.models import QuerySet

from queues import estimates, wait_reasons
from queues.models import Job, Queue
from queues.selectors.jobs import RECENT_SPAN, rate_of
from queues.states import GroupKey, Stage

GROUPS = 10
"""Groups that are considered at most."""


def forecast(jobs: QuerySet[Job], left: int) -> tuple[str | None, datetime | None]:
    """The limit that binds `jobs` now, and the time at which the last of the `left` ones that have not ended does; None
    where it is unknown."""
    ready = jobs.filter(stage=Stage.READY).order_by()
    groups = [GroupKey(*row) for row in ready.values_list(*GroupKey._fields).distinct()[:GROUPS]]
    waits = list(wait_reasons.read_group_waits(groups).values())
    binding = waits[0].reason if waits else None
    if binding is None and groups:
        paused = Queue.objects.filter(pk__in=[group.queue_id for group in groups], paused_at__isnull=False).first()
        if paused is not None:
            return f"queue {paused.name} is paused", None
    return binding, estimates.end_of(jobs, left, waits, rate_of(jobs, RECENT_SPAN))
