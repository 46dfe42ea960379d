"""What limits some jobs now, and when the last of them ends."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from django.db.models import Max, QuerySet

from queues import estimates, wait_reasons
from queues.models import Job, Queue
from queues.selectors.explanation import estimated_start
from queues.selectors.jobs import RECENT_SPAN, rate_of
from queues.states import GroupKey, Stage
from quotas import clock

GROUPS = 10
"""Groups that are considered at most."""


def binding_and_end(jobs: QuerySet[Job], left: int) -> tuple[str | None, datetime | None]:
    """The limit that binds `jobs` now, and the time at which the last of the `left` ones that have not ended does; None
    where it is unknown."""
    ready = jobs.filter(stage=Stage.READY).order_by()
    groups = [GroupKey(*row) for row in ready.values_list(*GroupKey._fields).distinct()[:GROUPS]]
    waits = wait_reasons.read_group_waits(groups)
    binding = next((wait.reason for wait in waits.values()), None)
    if binding is None and groups:
        paused = Queue.objects.filter(pk__in=[group.queue_id for group in groups], paused_at__isnull=False).first()
        if paused is not None:
            return f"queue {paused.name} is paused", None
    last = [job for group in groups for job in estimates.last_starts(ready.filter(**group._asdict()), waits.get(group))]
    return binding, _end(jobs, left, last)


def _end(jobs: QuerySet[Job], left: int, last: Sequence[Job]) -> datetime | None:
    """Not before the estimated start of any of the jobs: of the `last` of each group, and of those with a time."""
    end = estimates.at_rate(clock.now(), left, rate_of(jobs, RECENT_SPAN))
    starts = [estimated_start(job) for job in last]
    if None in starts:
        return None
    starts.append(jobs.filter(stage=Stage.SCHEDULED).aggregate(last=Max("not_before"))["last"])
    times = [time for time in (end, *starts) if time is not None]
    now = clock.now()
    # A start that is now says nothing of the end.
    return max(times) if end is not None or any(time > now for time in times) else None
