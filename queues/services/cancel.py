"""Cancelling jobs in every state."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from django.db import transaction
from django.db.models import QuerySet

from queues.announcement import announce
from queues.connection import ring
from queues.errors import AlreadyFinished
from queues.models import Job, Transition
from queues.services.deadlock import again_after_deadlock
from queues.services.slices import slices
from queues.states import LIVE_STAGES, Stage, Status
from quotas import clock, events

SLICE = 500
"""Jobs that one statement ends."""


@again_after_deadlock
def cancel(job_id: int, *, actor: str, reason: str = "", audited: bool = False) -> Job:
    """End a job that waits at once; ask the worker of one that runs to end it, which takes about a second.

    Raises `AlreadyFinished`. `audited` writes the audit trail, for operators; a caller's own cancel stands in the
    timeline only.
    """
    from queues.worker.settle import close

    with transaction.atomic():
        job = Job.objects.select_for_update(of=("self",)).select_related("project", "queue").get(pk=job_id)
        if job.stage == Stage.DONE:
            raise AlreadyFinished(f"The job has ended already: it is {job.status}.")
        now, before = clock.now(), job.status
        why = f" by {actor}" + (f": {reason}" if reason else "")
        text = f"cancelled{why}"
        if job.stage == Stage.RUNNING:
            if job.cancel_requested_at is None:
                Job.objects.filter(pk=job.pk).update(cancel_requested_at=now, reason=text[:480])
                Transition.objects.create(job=job, at=now, state=job.status, reason=f"cancel asked for{why}"[:500])
        else:
            lease, reservation = job.account_lease, job.reservation
            Job.objects.filter(pk=job.pk).update(
                stage=Stage.DONE, status=Status.CANCELLED, reason=text[:500], finished_at=now, cancel_requested_at=now,
                account_lease="", reservation="",
            )  # fmt: skip
            Transition.objects.create(job=job, at=now, state=Status.CANCELLED, reason=text[:500])
            job.status, job.reason = Status.CANCELLED, text[:500]
            close([job], now)
            announce([job])
            transaction.on_commit(lambda: _give_back(job, lease, reservation))
        if audited:
            events.emit(
                events.OperatorActed(
                    actor,
                    "job.cancel",
                    f"job:{job.uid}",
                    {"status": before},
                    {"status": "cancelled"},
                    reason,
                    project=job.project.slug,
                )  # fmt: skip
            )
    job.refresh_from_db()
    return job


def cancel_all(jobs: QuerySet[Job], *, actor: str, reason: str) -> int:
    """End all of `jobs` that have not ended, many by one statement; those that run are asked to. How many that were."""
    from queues.worker.settle import close

    text = f"cancelled by {actor}: {reason}"[:480]
    done = 0
    with transaction.atomic():
        ids = list(jobs.filter(stage__in=LIVE_STAGES).order_by("pk").values_list("pk", flat=True))
        for some in slices(ids, SLICE):
            rows = Job.objects.filter(pk__in=some, stage__in=LIVE_STAGES).order_by("pk")
            found = list(rows.select_for_update(of=("self",)))
            now = clock.now()
            waiting = [job for job in found if job.stage != Stage.RUNNING]
            running = [job.pk for job in found if job.stage == Stage.RUNNING]
            Job.objects.filter(pk__in=running, cancel_requested_at=None).update(cancel_requested_at=now, reason=text)
            held = [(job, job.account_lease, job.reservation) for job in waiting]
            Job.objects.filter(pk__in=[job.pk for job in waiting]).update(
                stage=Stage.DONE, status=Status.CANCELLED, reason=text, finished_at=now, cancel_requested_at=now,
                account_lease="", reservation="",
            )  # fmt: skip
            Transition.objects.bulk_create(
                Transition(job=job, at=now, state=Status.CANCELLED, reason=text) for job in waiting
            )
            for job in waiting:
                job.status, job.reason = Status.CANCELLED, text
            close(waiting, now)
            announce(waiting)
            transaction.on_commit(partial(_give_all_back, held))
            done += len(found)
    return done


def _give_all_back(held: Sequence[tuple[Job, str, str]]) -> None:
    from queues.settlement import give_back

    for job, lease, reservation in held:
        give_back(job, lease, reservation)
    ring(unblock=True)


def _give_back(job: Job, lease: str, reservation: str) -> None:
    """What a released job had reserved is free again; where Redis is away it runs out by itself."""
    if lease or reservation:
        from queues.settlement import give_back

        give_back(job, lease, reservation)
    ring(unblock=True)
