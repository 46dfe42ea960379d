"""Cancels jobs in every state."""

from __future__ import annotations

from django.db import transaction
from django.db.models import QuerySet

from queues.errors import AlreadyFinished
from queues.lifecycle import operators as lifecycle
from queues.lifecycle.sql import slices
from queues.models import Job, Transition
from queues.states import LIVE_STAGES, Stage
from queues.transactions import retry_after_deadlock
from quotas import clock, events

SLICE = 500
"""Jobs that one statement ends."""


@retry_after_deadlock
def cancel(job_id: int, *, actor: str, reason: str = "", audited: bool = False) -> Job:
    """End a waiting job at once; request the worker of a running one to end it, which takes about a second.

    Raises `AlreadyFinished`. `audited` writes the audit trail, for operators; a caller's own cancel stands in the
    timeline only.
    """
    with transaction.atomic():
        job = Job.objects.select_for_update(of=("self",)).select_related("project", "queue").get(pk=job_id)
        if job.stage == Stage.DONE:
            raise AlreadyFinished(f"The job has ended already: it is {job.status}.")
        now, before = clock.now(), job.status
        why = f" by {actor}" + (f": {reason}" if reason else "")
        text = f"cancelled{why}"
        if job.stage == Stage.RUNNING:
            if lifecycle.request_cancel([job], text[:480], now):
                Transition.objects.create(job=job, at=now, state=job.status, reason=f"cancel requested{why}"[:500])
        else:
            lifecycle.cancel([job], text[:500], now)
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
    """End all of `jobs` that have not ended, many by one statement; those that run get a request to end. Returns how many."""
    text = f"cancelled by {actor}: {reason}"[:480]
    done = 0
    with transaction.atomic():
        ids = list(jobs.filter(stage__in=LIVE_STAGES).order_by("pk").values_list("pk", flat=True))
        for some in slices(ids, SLICE):
            rows = Job.objects.filter(pk__in=some, stage__in=LIVE_STAGES).order_by("pk")
            found = list(rows.select_for_update(of=("self",)))
            now = clock.now()
            waiting = [job for job in found if job.stage != Stage.RUNNING]
            lifecycle.request_cancel([job for job in found if job.stage == Stage.RUNNING], text, now)
            lifecycle.cancel(waiting, text, now)
            done += len(found)
    return done
