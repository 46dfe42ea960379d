"""Retention: deletes completed and cancelled jobs by age and by count; dead jobs stay until their letters are handled.

What something pending needs is kept: jobs of a batch stay until the batch has ended, and are counted on it when they are
deleted; callbacks that are due contain all that they send.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Exists, OuterRef, Q, QuerySet

from queues.models import (
    Batch,
    Callback,
    DeadLetter,
    IntakePart,
    Job,
    JobDependency,
    WaitInterval,
    WorkerProcess,
)
from queues.services import removal
from queues.states import Stage, Status
from quotas import events

SLICE = 1000
"""Rows deleted in one transaction, so that other transactions are not delayed."""


def pace() -> float:
    """Seconds between two slices: a tenth of the time that rows are kept, from one second to a minute."""
    return min(max(settings.RETENTION_DAYS * 86400 / 10, 1.0), 60.0)


def prune(now: datetime) -> None:
    """Delete one slice of jobs that are too old or too many, and old rows of workers."""
    if IntakePart.objects.exists():
        return  # jobs that are still to be written may wait for ended ones
    edge = now - timedelta(days=settings.RETENTION_DAYS)
    removed = _remove(_deletable().filter(finished_at__lt=edge).order_by("id"))
    if removed < SLICE:
        # Ids rise with each job, so that the newest ones are known without counting.
        newest = Job.objects.order_by("-id").values_list("id", flat=True).first() or 0
        removed += _remove(_deletable().filter(id__lte=newest - settings.RETENTION_COUNT).order_by("id"))
    _remove_batches(edge)
    _remove_waits()
    Callback.objects.filter(job=None, batch=None, due_at=None, created_at__lt=edge)._raw_delete("default")
    WorkerProcess.objects.filter(seen_at__lt=now - timedelta(days=1)).delete()
    if removed:
        events.emit(events.JobsPruned(removed))


def _remove_waits() -> None:
    """Intervals of the wait ledger that ended before the oldest job was accepted, a slice of them."""
    oldest = Job.objects.order_by("id").values_list("created_at", flat=True).first()
    over = WaitInterval.objects.filter(ended_at__isnull=False)
    if oldest is not None:
        over = over.filter(ended_at__lt=oldest)
    ids = list(over.order_by("ended_at").values_list("pk", flat=True)[:SLICE])
    if ids:
        WaitInterval.objects.filter(pk__in=ids).delete()


def _deletable() -> QuerySet[Job]:
    """Ended jobs that nothing needs any more: no open dead letter, no job that waits for them, no running batch."""
    awaited = JobDependency.objects.filter(after=OuterRef("pk"), job__stage=Stage.HELD)
    unhandled = DeadLetter.objects.filter(job=OuterRef("pk"), handled_at=None)
    running = Batch.objects.filter(pk=OuterRef("batch"), finished_at=None)
    ended = Q(status__in=[Status.COMPLETED, Status.CANCELLED]) | Q(Q(status=Status.DEAD), ~Exists(unhandled))
    return Job.objects.filter(ended, stage=Stage.DONE).exclude(Exists(awaited)).exclude(Exists(running))


def _remove(rows: QuerySet[Job]) -> int:
    """Delete up to a slice of jobs with all that belongs to them. Callbacks that are due stay."""
    with transaction.atomic():
        rows = rows.select_for_update(of=("self",), skip_locked=connection.features.has_select_for_update_skip_locked)
        ids = list(rows.values_list("id", flat=True)[:SLICE])
        if not ids:
            return 0
        removal.remove(ids)
    return len(ids)


def _remove_batches(edge: datetime) -> None:
    """Delete batches that ended long ago and whose jobs are deleted. Callbacks that are due stay."""
    with transaction.atomic():
        old = Batch.objects.filter(finished_at__lt=edge, then=None).exclude(
            Exists(Job.objects.filter(batch=OuterRef("pk")))
        )
        ids = list(old.order_by("pk").values_list("pk", flat=True)[:SLICE])
        if ids:
            Callback.objects.filter(batch_id__in=ids, due_at=None)._raw_delete("default")
            Batch.objects.filter(pk__in=ids).delete()  # sets the batch of callbacks that are due to null
