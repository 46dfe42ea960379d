"""Transitions of jobs that wait for other jobs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from queues.lifecycle.effects import Effects
from queues.lifecycle.table import transition
from queues.models import Job
from queues.slices import slices
from queues.states import Stage, Status

SLICE = 500
"""Jobs that one statement names."""


@transition(
    "release_held",
    [Stage.HELD],
    {Stage.READY: (Status.PENDING,), Stage.SCHEDULED: (Status.PENDING,)},
    callers="effects of ended jobs, complete batches",
    effects=["wake-up"],
)
def release_held(effects: Effects, jobs: Sequence[Job], now: datetime) -> None:
    """Make held jobs ready, or scheduled where their time is still to come. Owes a wake-up of their groups."""
    later = [job for job in jobs if job.not_before is not None and job.not_before > now]
    timed = {job.pk for job in later}
    ready = [job.pk for job in jobs if job.pk not in timed]
    for ids in slices(ready, SLICE):
        Job.objects.filter(pk__in=ids, stage=Stage.HELD).update(stage=Stage.READY, reason="", not_before=now)
    for ids in slices(sorted(timed), SLICE):
        Job.objects.filter(pk__in=ids, stage=Stage.HELD).update(stage=Stage.SCHEDULED, reason="waits for its time")
    effects.requeued.update(job.group for job in jobs)


@transition(
    "cancel_held",
    [Stage.HELD],
    {Stage.DONE: (Status.CANCELLED,)},
    callers="effects of ended jobs",
    effects=["timeline", "event", "dependants", "batch", "callback"],
)
def cancel_held(effects: Effects, failed: Sequence[tuple[Job, str]], now: datetime) -> None:
    """End each of the jobs because the other one did not complete. Owes what every end owes."""
    for job, uid in failed:
        job.stage, job.status, job.finished_at = Stage.DONE, Status.CANCELLED, now
        job.reason = f"job {uid}, which it waited for, did not complete"
        effects.step(job, now)
    jobs = [job for job, _ in failed]
    Job.objects.bulk_update(jobs, ["stage", "status", "reason", "finished_at"], batch_size=SLICE)
    effects.ended += jobs
    effects.changed += jobs
