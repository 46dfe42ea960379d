"""What follows from ended jobs: transitions of the jobs that waited for them, and batches that are complete now."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from queues.lifecycle import sql
from queues.lifecycle.sql import slices
from queues.lifecycle.table import transition
from queues.models import Batch, IntakePart, Job, JobDependency
from queues.states import FINAL, UNFINISHED, GroupKey, Stage, Status

SLICE = 500
"""Jobs that one statement names."""


@transition(
    "release_held",
    [Stage.HELD],
    {Stage.READY: (Status.PENDING,), Stage.SCHEDULED: (Status.PENDING,)},
    callers="effects of ended jobs, complete batches",
    effects=["wake-up"],
)
def release_held(jobs: Sequence[Job], now: datetime) -> set[GroupKey]:
    """Make jobs of stage HELD ready, or scheduled if their time has not come. Returns their groups, which are owed a
    wake-up."""
    later = [job for job in jobs if job.not_before is not None and job.not_before > now]
    timed = {job.pk for job in later}
    ready = [job.pk for job in jobs if job.pk not in timed]
    for ids in slices(ready, SLICE):
        Job.objects.filter(pk__in=ids, stage=Stage.HELD).update(stage=Stage.READY, reason="", not_before=now)
    for ids in slices(sorted(timed), SLICE):
        Job.objects.filter(pk__in=ids, stage=Stage.HELD).update(stage=Stage.SCHEDULED, reason="waits for its time")
    return {job.group for job in jobs}


@transition(
    "cancel_held",
    [Stage.HELD],
    {Stage.DONE: (Status.CANCELLED,)},
    callers="effects of ended jobs",
    effects=["timeline", "event", "dependants", "batch", "callback"],
)
def cancel_held(failed: Sequence[tuple[Job, str]], now: datetime) -> list[Job]:
    """End each of the jobs because the other one did not complete. Returns them: they are owed what every end owes."""
    for job, uid in failed:
        job.stage, job.status, job.finished_at = Stage.DONE, Status.CANCELLED, now
        job.reason = f"job {uid}, which it waited for, did not complete"
    jobs = [job for job, _ in failed]
    Job.objects.bulk_update(jobs, ["stage", "status", "reason", "finished_at"], batch_size=SLICE)
    return jobs


def follow(job_ids: Collection[int], now: datetime) -> tuple[list[Job], set[GroupKey]]:
    """Decide on the jobs of stage HELD `job_ids`, which wait for jobs that have ended: one that waits for no other job any
    more is released; one that waited for a job that died or was cancelled is cancelled, and its own dependants follow.
    Returns the cancelled jobs and the groups of the released ones."""
    cancelled: list[Job] = []
    released: set[GroupKey] = set()
    while job_ids:
        failed, free = _decide(_locked(job_ids))
        job_ids = ()
        if failed:
            ended = cancel_held(failed, now)
            cancelled += ended
            job_ids = sql.held_for([job.pk for job in ended])
        if free:
            released |= release_held(free, now)
    return cancelled, released


def _locked(job_ids: Collection[int]) -> list[Job]:
    """Those of the jobs that are of stage HELD, locked, by id."""
    found: list[Job] = []
    for ids in slices(sorted(job_ids), SLICE):
        found += Job.objects.filter(pk__in=ids, stage=Stage.HELD).order_by("pk").select_for_update()
    return found


def _decide(jobs: Sequence[Job]) -> tuple[list[tuple[Job, str]], list[Job]]:
    """Those of the jobs that can't run any more, each with the job that did not complete; and those that may run now."""
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


def complete_batches(batch_ids: Sequence[int], now: datetime) -> tuple[list[int], set[GroupKey]]:
    """Mark those of the batches complete that are sealed and whose jobs have all ended, and release the jobs that waited
    for them; once, whatever is replayed in them later. Returns the batches' ids and the groups of the released jobs."""
    # Locked even if it seems to be open: of two transactions that seal it and end its last job, or that end its last two
    # jobs, neither sees what the other does. The lock returns the row as it is then.
    rows = Batch.objects.filter(pk__in=batch_ids, finished_at=None).order_by("pk").select_for_update(no_key=True)
    complete = [pk for pk, is_open in list(rows.values_list("pk", "open")) if not is_open and _all_ended(pk)]
    if not complete:
        return [], set()
    Batch.objects.filter(pk__in=complete).update(finished_at=now)
    waiting = Job.objects.filter(closes__in=complete, stage=Stage.HELD).order_by("pk")
    return complete, release_held(list(waiting.select_for_update(of=("self",))), now)


def _all_ended(batch_id: int) -> bool:
    """Whether all its jobs are rows that have ended."""
    if IntakePart.objects.filter(batch=batch_id).exists():
        return False
    # By the statuses that are left, not by those that ended: an index finds them without reading all that ended.
    return not Job.objects.filter(batch_id=batch_id, status__in=UNFINISHED).exists()
