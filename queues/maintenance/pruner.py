"""Retention: what is completed or cancelled goes by age and by count; what is dead stays until it is handled."""

from __future__ import annotations

from datetime import datetime, timedelta

import structlog
from django.conf import settings
from django.db.models import Exists, OuterRef, Q

from queues.models import Attempt, Batch, Callback, DeadLetter, Job, JobDependency, Transition, WorkerProcess
from queues.states import Stage, Status

log = structlog.get_logger(__name__)

SLICE = 1000
"""Rows deleted in one transaction, so that nobody waits long."""


def pace() -> float:
    """Seconds between two slices: a tenth of the time that rows are kept, from one second to a minute."""
    return min(max(settings.RETENTION_DAYS * 86400 / 10, 1.0), 60.0)


def prune(now: datetime) -> None:
    """One slice of what is too old or too much, and worker rows of yesterday."""
    removed = _remove(_deletable().filter(finished_at__lt=now - timedelta(days=settings.RETENTION_DAYS)).order_by("id"))
    if removed < SLICE:
        # Ids rise with each job, so that the newest ones are told without counting.
        newest = Job.objects.order_by("-id").values_list("id", flat=True).first() or 0
        removed += _remove(_deletable().filter(id__lte=newest - settings.RETENTION_COUNT).order_by("id"))
    Batch.objects.filter(finished_at__lt=now - timedelta(days=settings.RETENTION_DAYS)).exclude(
        Exists(Job.objects.filter(batch=OuterRef("pk")))
    ).delete()
    WorkerProcess.objects.filter(seen_at__lt=now - timedelta(days=1)).delete()
    if removed:
        log.info("pruner.removed", jobs=removed)


def _deletable():  # type: ignore[no-untyped-def]
    held = JobDependency.objects.filter(after=OuterRef("pk"), job__stage=Stage.HELD)
    unhandled = DeadLetter.objects.filter(job=OuterRef("pk"), handled_at=None)
    ended = Q(status__in=[Status.COMPLETED, Status.CANCELLED]) | Q(Q(status=Status.DEAD), ~Exists(unhandled))
    return Job.objects.filter(ended, stage=Stage.DONE).exclude(Exists(held))


def _remove(rows) -> int:  # type: ignore[no-untyped-def]
    ids = list(rows.values_list("id", flat=True)[:SLICE])
    if ids:
        # Children first and by hand: the ORM's own cascade would read every row before it deletes it.
        for child in (Attempt, Transition, DeadLetter, Callback):
            child.objects.filter(job_id__in=ids)._raw_delete("default")  # type: ignore[attr-defined]
        JobDependency.objects.filter(job_id__in=ids).delete()
        JobDependency.objects.filter(after_id__in=ids).delete()
        Batch.objects.filter(then_id__in=ids).update(then=None)
        Job.objects.filter(id__in=ids)._raw_delete("default")  # type: ignore[attr-defined]
    return len(ids)
