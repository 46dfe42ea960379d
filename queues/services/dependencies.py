"""Jobs that wait for other jobs."""

from __future__ import annotations

from collections.abc import Sequence

from django.db import transaction

from queues import clock
from queues.announcement import announce
from queues.connection import ring
from queues.models import Job, JobDependency, Transition
from queues.states import FINAL, Stage, Status


def settle_ended(job_ids: Sequence[int]) -> None:
    """Look at all that waits for the ended jobs `job_ids`: what waits for nothing more goes in line; where one of
    them died or was cancelled, what waited for it is cancelled with that reason, and so on down the line."""
    from queues.services import batches, callbacks

    ended = list(job_ids)
    cancelled: list[Job] = []
    now = clock.now()
    while ended:
        waiting = list(
            Job.objects.filter(
                pk__in=JobDependency.objects.filter(after_id__in=ended).values("job_id"), stage=Stage.HELD
            )
            .order_by("pk")
            .select_for_update()
        )
        ended = []
        for job in waiting:
            others = list(JobDependency.objects.filter(job=job).values_list("after__status", "after__uid"))
            failed = next((uid for status, uid in others if status in (Status.DEAD, Status.CANCELLED)), None)
            if failed is not None:
                _cancel(job, f"job {failed}, which it waited for, did not complete")
                ended.append(job.pk)
                cancelled.append(job)
            elif all(status in FINAL for status, _ in others):
                release(job)
    announce(cancelled)
    callbacks.note_jobs(cancelled, now)
    whole = batches.finish_ended(sorted({job.batch_id for job in cancelled if job.batch_id is not None}), now)
    callbacks.note_batches(whole, now)


def release(job: Job) -> None:
    """Make a held job ready, or scheduled if its time is still to come."""
    now = clock.now()
    timed = job.not_before is not None and job.not_before > now
    Job.objects.filter(pk=job.pk, stage=Stage.HELD).update(
        stage=Stage.SCHEDULED if timed else Stage.READY,
        reason="waits for its time" if timed else "",
        not_before=job.not_before if timed else now,
    )
    group = (job.queue_id, job.priority, job.project_id, job.pool)
    transaction.on_commit(lambda: ring([group], again=True))


def _cancel(job: Job, reason: str) -> None:
    now = clock.now()
    job.status, job.reason = Status.CANCELLED, reason
    Job.objects.filter(pk=job.pk).update(stage=Stage.DONE, status=job.status, reason=reason, finished_at=now)
    Transition.objects.create(job=job, at=now, state=Status.CANCELLED, reason=reason)
