"""Jobs that wait for other jobs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from django.db import transaction

from queues.announcement import announce
from queues.connection import ring
from queues.models import Job, JobDependency, Transition
from queues.services.slices import slices
from queues.states import FINAL, Stage, Status
from quotas import clock

SLICE = 500
"""Jobs that one statement names."""


def settle_ended(job_ids: Collection[int]) -> None:
    """Look at all that waits for the ended jobs `job_ids`: what waits for nothing more goes in line; where one of
    them died or was cancelled, what waited for it is cancelled with that reason, and so on down the line."""
    from queues.services import batches, callbacks

    ended = set(job_ids)
    cancelled: list[Job] = []
    now = clock.now()
    while ended:
        failed, free = _decide(_waiting_for(ended))
        _cancel(failed, now)
        release(free)
        ended = {job.pk for job, _ in failed}
        cancelled += [job for job, _ in failed]
    announce(cancelled)
    callbacks.note_jobs(cancelled, now)
    whole = batches.finish_ended(sorted({job.batch_id for job in cancelled if job.batch_id is not None}), now)
    callbacks.note_batches(whole, now)


def _waiting_for(ended: Collection[int]) -> list[Job]:
    """The jobs that are held for any of the jobs `ended`, locked, by id."""
    waiting: set[int] = set()
    for ids in slices(sorted(ended), SLICE):
        rows = JobDependency.objects.filter(after_id__in=ids, job__stage=Stage.HELD)
        waiting.update(rows.values_list("job_id", flat=True))
    found: list[Job] = []
    for ids in slices(sorted(waiting), SLICE):
        found += Job.objects.filter(pk__in=ids, stage=Stage.HELD).order_by("pk").select_for_update()
    return found


def _decide(jobs: Sequence[Job]) -> tuple[list[tuple[Job, str]], list[Job]]:
    """Those of the jobs that can't run any more, each with the job that did not complete, and those that may run now."""
    failed: list[tuple[Job, str]] = []
    free: list[Job] = []
    for some in slices(jobs, SLICE):
        failures: dict[int, str] = {}
        unfinished: set[int] = set()
        rows = JobDependency.objects.filter(job_id__in=[job.pk for job in some]).exclude(after__status=Status.COMPLETED)
        for job_id, status, uid in rows.order_by("pk").values_list("job_id", "after__status", "after__uid"):
            if status in FINAL:
                failures.setdefault(job_id, uid)
            else:
                unfinished.add(job_id)
        failed += [(job, failures[job.pk]) for job in some if job.pk in failures]
        free += [job for job in some if job.pk not in failures and job.pk not in unfinished]
    return failed, free


def release(jobs: Sequence[Job]) -> None:
    """Make held jobs ready, or scheduled where their time is still to come."""
    now = clock.now()
    timed = [job.pk for job in jobs if job.not_before is not None and job.not_before > now]
    later = set(timed)
    ready: dict[str, Any] = {"stage": Stage.READY, "reason": "", "not_before": now}
    scheduled: dict[str, Any] = {"stage": Stage.SCHEDULED, "reason": "waits for its time"}
    for ids, values in (([job.pk for job in jobs if job.pk not in later], ready), (timed, scheduled)):
        for some in slices(ids, SLICE):
            Job.objects.filter(pk__in=some, stage=Stage.HELD).update(**values)
    groups = {(job.queue_id, job.priority, job.project_id, job.pool) for job in jobs}
    if groups:
        transaction.on_commit(lambda: ring(groups, again=True))


def _cancel(failed: Sequence[tuple[Job, str]], now: datetime) -> None:
    """End each of the jobs for the reason that another one did not complete."""
    for job, uid in failed:
        job.stage, job.status, job.finished_at = Stage.DONE, Status.CANCELLED, now
        job.reason = f"job {uid}, which it waited for, did not complete"
    jobs = [job for job, _ in failed]
    Job.objects.bulk_update(jobs, ["stage", "status", "reason", "finished_at"], batch_size=SLICE)
    Transition.objects.bulk_create(
        (Transition(job=job, at=now, state=Status.CANCELLED, reason=job.reason) for job in jobs), batch_size=SLICE
    )
