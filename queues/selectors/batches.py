"""Progress of a batch: counts by status, rate, what limits it now, when it will probably end."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.db.models import Count

from queues import estimates, wait_reasons
from queues.models import Batch, Job, Queue
from queues.selectors.jobs import RECENT_SPAN, rate_of
from queues.states import FINAL, GroupKey, Stage, Status


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """`eta` is by the binding limit's own rate and windows; None if that is unknown."""

    total: int
    totals: dict[str, int]
    """Jobs by status."""
    rate: float
    """Jobs per second that ended in the last minute."""
    eta: datetime | None
    binding: str | None
    """What limits it now."""


def batch_progress(batch: Batch) -> BatchProgress:
    """How far the batch has come."""
    counted = dict(batch.jobs.order_by().values_list("status").annotate(count=Count("id")))
    totals = {status: counted.get(status, 0) + batch.pruned.get(status, 0) for status in Status.values}
    totals[Status.PENDING] += sum(batch.parts.values_list("count", flat=True))
    left = sum(count for status, count in totals.items() if status not in FINAL)
    rate = rate_of(Job.objects.filter(batch=batch)) if left else 0.0
    binding, eta = _forecast(batch, left) if left else (None, None)
    return BatchProgress(total=sum(totals.values()), totals=totals, rate=round(rate, 3), eta=eta, binding=binding)


def _forecast(batch: Batch, left: int) -> tuple[str | None, datetime | None]:
    """What limits the batch now, and when its last job ends."""
    jobs = Job.objects.filter(batch=batch)
    ready = jobs.filter(stage=Stage.READY).order_by()
    groups = [GroupKey(*row) for row in ready.values_list(*GroupKey._fields).distinct()[:10]]
    waits = list(wait_reasons.read_group_waits(groups).values())
    binding = waits[0].reason if waits else None
    if binding is None and groups:
        paused = Queue.objects.filter(pk__in=[group.queue_id for group in groups], paused_at__isnull=False).first()
        if paused is not None:
            return f"queue {paused.name} is paused", None
    return binding, estimates.end_of(jobs, left, waits, rate_of(jobs, RECENT_SPAN))
