"""Transitions of deliveries that their workers did not finish: requeued by a worker that stops, lost with its worker."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from django.db import transaction

from queues import registry
from queues.lifecycle import sql
from queues.lifecycle.effects import Effects, apply, clear_delivery
from queues.lifecycle.fate import MAX_LOST
from queues.lifecycle.table import transition
from queues.models import Job
from queues.settlement import interrupted, lost
from queues.states import IN_FLIGHT_STAGES, Stage, Status
from quotas import clock
from quotas.engine.categories import Category

LOST_AT_ONCE = 500
"""Jobs of lost workers that one transaction takes."""
_LOST = (
    "losses", "worker", "lease_until", "account_lease", "reservation", "stage", "status", "reason", "suspect",
    "finished_at", "category", "error", "not_before",
)  # fmt: skip


@transition(
    "requeue",
    [Stage.RUNNING],
    {Stage.READY: (Status.PENDING,)},
    callers="worker that stops",
    effects=["attempt", "timeline", "event", "wake-up", "settlement"],
)
def requeue(deliveries: Mapping[int, int], worker: str, reason: str, *, suspect: bool) -> int:
    """Return the deliveries {job: number} that `worker` can't finish to the front of their groups; returns how many were
    still its own. Not counted as an attempt. `suspect`: any of them may be why the worker stops.

    Skipped: at-most-once jobs, which finish instead, and jobs with a cancel request, which the reconciler ends.
    """
    with transaction.atomic():
        jobs = [
            job
            for job in Job.objects.filter(
                id__in=deliveries,
                stage__in=IN_FLIGHT_STAGES,
                stage=Stage.RUNNING,
                worker=worker,
                cancel_requested_at=None,
            )
            .exclude(delivery_mode="at_most_once")
            .order_by("id")
            .select_for_update()
            if job.delivery == deliveries[job.pk]
        ]
        now = clock.now()
        effects = Effects(changed=jobs, unblock=True)
        for job in jobs:
            effects.lost_attempt(job, "Its worker stopped before it was done.", now)
            effects.settlements += interrupted(job)
            clear_delivery(job)
            job.stage, job.status, job.reason, job.not_before = Stage.READY, Status.PENDING, reason, now
            if suspect:
                job.losses += 1
                job.suspect = job.suspect or registry.is_suspect(job.type, job.losses)
            effects.step(job, now)
            effects.requeued.add(job.group)
        sql.write_jobs(_LOST, jobs)
        apply(effects, now)
    return len(jobs)


@transition(
    "lose",
    [Stage.RUNNING],
    {Stage.READY: (Status.PENDING,), Stage.DONE: (Status.CANCELLED, Status.DEAD)},
    callers="reconciler",
    effects=[
        "attempt", "timeline", "event", "wake-up", "settlement", "dead letter", "dependants", "batch", "callback",
    ],
)  # fmt: skip
def lose(now: datetime) -> int:
    """Take jobs from workers whose claims have expired; returns how many. A job with a cancel request is cancelled, an
    at-most-once job dies, and so does one that was lost too often; any other goes back to the front of its group under a
    new delivery number."""
    expired = Job.objects.filter(stage__in=IN_FLIGHT_STAGES, stage=Stage.RUNNING, lease_until__lt=now)
    if not expired.exists():  # nearly always: without a transaction, which on SQLite excludes every other writer
        return 0
    with transaction.atomic():
        jobs = list(expired.order_by("id").select_for_update()[:LOST_AT_ONCE])
        effects = Effects(changed=jobs, unblock=True)
        for job in jobs:
            effects.lost_attempt(job, "Its worker was lost.", now)
            effects.settlements += lost(job)
            job.losses += 1
            clear_delivery(job)
            _lose_one(effects, job, now)
        sql.write_jobs(_LOST, jobs)
        apply(effects, now)
    return len(jobs)


def _lose_one(effects: Effects, job: Job, now: datetime) -> None:
    if job.cancel_requested_at is not None:
        job.stage, job.status, job.finished_at = Stage.DONE, Status.CANCELLED, now
        job.reason = f"{job.reason or 'cancelled'}, while it ran"
        effects.step(job, now)
        effects.ended.append(job)
    elif job.delivery_mode == "at_most_once":
        job.stage, job.status, job.finished_at, job.category = Stage.DONE, Status.DEAD, now, Category.LOST.value
        job.error = job.reason = "Its worker was lost, and it is delivered at most once."
        effects.dead.append(job)  # the timeline shows a dead job from its own row
        effects.ended.append(job)
    elif job.losses >= MAX_LOST:
        job.stage, job.status, job.finished_at, job.category = Stage.DONE, Status.DEAD, now, Category.POISON.value
        job.error = job.reason = f"Its worker was lost {job.losses} times."
        job.suspect = False
        effects.dead.append(job)
        effects.ended.append(job)
    else:
        job.stage, job.status, job.reason, job.not_before = Stage.READY, Status.PENDING, "its worker was lost", now
        job.suspect = job.suspect or registry.is_suspect(job.type, job.losses)
        effects.step(job, now)
        effects.requeued.add(job.group)
