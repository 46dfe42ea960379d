"""Transitions that callers and operators request: cancel and replay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from queues.lifecycle.effects import Effects, apply
from queues.lifecycle.table import transition
from queues.models import Batch, Job
from queues.settlement import unused
from queues.states import Stage, Status


@transition(
    "cancel",
    [Stage.HELD, Stage.SCHEDULED, Stage.READY, Stage.BELT],
    {Stage.DONE: (Status.CANCELLED,)},
    callers="cancel, removal of a queue or project",
    effects=["timeline", "event", "wake-up", "settlement", "dependants", "batch", "callback"],
)
def cancel(jobs: Sequence[Job], reason: str, now: datetime) -> None:
    """End jobs that do not run, which the caller has locked. Owes what every end owes, and the return of what was
    reserved for a delivery on the belt."""
    effects = Effects(ended=list(jobs), changed=list(jobs), unblock=True)
    Job.objects.filter(pk__in=[job.pk for job in jobs]).update(
        stage=Stage.DONE, status=Status.CANCELLED, reason=reason, finished_at=now, cancel_requested_at=now,
        account_lease="", reservation="",
    )  # fmt: skip
    for job in jobs:
        effects.settlements += unused(job)
        job.stage, job.status, job.reason, job.finished_at = Stage.DONE, Status.CANCELLED, reason, now
        job.account_lease = job.reservation = ""
        effects.step(job, now)
    apply(effects, now)


def request_cancel(jobs: Sequence[Job], reason: str, now: datetime) -> int:
    """Request the workers of running jobs to end them; the stage changes when they finish. Returns the number of new requests."""
    return Job.objects.filter(pk__in=[job.pk for job in jobs], cancel_requested_at=None).update(
        cancel_requested_at=now, reason=reason
    )


@transition(
    "replay",
    [Stage.DONE],
    {Stage.READY: (Status.PENDING,)},
    callers="replay, retry, automatic replay",
    effects=["timeline", "event", "wake-up"],
)
def replay(job: Job, reason: str, changed: Mapping[str, Any], now: datetime) -> None:
    """Make a dead job, which the caller has locked, ready again with its attempts reset. `changed`: columns of another
    payload. Its batch is no longer complete."""
    Job.objects.filter(pk=job.pk).update(
        stage=Stage.READY, status=Status.PENDING, reason=reason, category="", error="", finished_at=None,
        attempts_counted=0, deaths=0, losses=0, returns=0, replays=job.replays + 1, not_before=now,
        cancel_requested_at=None, refused_by=None, **changed,
    )  # fmt: skip
    if job.batch_id is not None:
        Batch.objects.filter(pk=job.batch_id).update(finished_at=None)
    job.refresh_from_db()
    effects = Effects(changed=[job], requeued={job.group})
    effects.step(job, now)
    apply(effects, now)
