"""Progress of a batch: counts by status, rate, what limits it now, when it will probably end."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.db.models import Count

from queues.models import Batch, Job
from queues.selectors.batch_end import binding_and_end
from queues.selectors.jobs import rate_of
from queues.states import FINAL, Status


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
    binding, eta = binding_and_end(Job.objects.filter(batch=batch), left) if left else (None, None)
    return BatchProgress(total=sum(totals.values()), totals=totals, rate=round(rate, 3), eta=eta, binding=binding)
