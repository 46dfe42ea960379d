"""Transitions of deliveries: released to the belt, claimed, finished, requeued, lost."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from datetime import datetime

from django.db import transaction

from queues import registry
from queues.deliveries import Ended
from queues.errors import LOST
from queues.lifecycle import sql
from queues.lifecycle.effects import Effects, attempt_of
from queues.lifecycle.fate import Fate, decide
from queues.lifecycle.perform import apply
from queues.lifecycle.table import transition
from queues.models import Attempt, Job
from queues.payloads import kept, storable
from queues.registry import RunResult
from queues.settlement import interrupted, lost, unused
from queues.states import CLAIM_EXPIRY, IN_FLIGHT_STAGES, AttemptOutcome, GroupKey, Stage, Status
from quotas import clock

LOST_AT_ONCE = 500
"""Jobs of lost workers that one transaction takes."""
_RELEASED = ("stage", "delivery", "parcel", "dispatched_at", "account_id", "account_lease", "reservation")
_CLAIMED = (
    "stage", "status", "worker", "lease_until", "started_at", "first_started_at", "attempts_made", "reason",
)  # fmt: skip
_FINISHED = (
    "stage", "status", "reason", "not_before", "attempts_counted", "result", "category", "error", "finished_at",
    "lease_until", "worker", "account_lease", "reservation", "suspect", "deaths", "returns", "refused_by",
)  # fmt: skip
_READ_BEFORE_FINISH = ("id", "delivery", "worker", "cancel_requested_at", "reason")


@dataclass(frozen=True, slots=True)
class Release:
    """One admitted job: its new delivery number, the parcel that carries it, and what was reserved for it."""

    job_id: int
    delivery: int
    parcel: str
    account_id: int | None
    account_lease: str
    reservation: str


@transition("release", [Stage.READY], {Stage.BELT: ()}, callers="dispatcher")
def release(releases: Sequence[Release], now: datetime) -> set[int]:
    """Mark admitted jobs as on the belt; inside the transaction that fences the leader. A job that was cancelled or
    released meanwhile is passed over. Returns the jobs that were marked; the caller enqueues their parcels."""
    ready = dict(sql.locked(("id", "delivery"), [item.job_id for item in releases], Stage.READY))
    rows = [
        (
            item.job_id,
            {
                "stage": Stage.BELT,
                "delivery": item.delivery,
                "parcel": item.parcel,
                "dispatched_at": now,
                "account_id": item.account_id,
                "account_lease": item.account_lease,
                "reservation": item.reservation,
            },
        )
        for item in releases
        if ready.get(item.job_id) == item.delivery - 1
    ]
    sql.write_values(_RELEASED, rows)
    return {pk for pk, _ in rows}


@transition("claim", [Stage.BELT], {Stage.RUNNING: (Status.EXECUTING,)}, callers="worker", effects=["event"])
def claim(deliveries: Mapping[int, int], worker: str) -> list[Job]:
    """Mark the deliveries {job: number} as running in `worker`; stale ones are passed over. Owes an event."""
    with transaction.atomic():
        jobs = [job for job in sql.locked_jobs(deliveries, Stage.BELT) if job.delivery == deliveries[job.pk]]
        now = clock.now()
        for job in jobs:
            job.stage, job.status, job.reason, job.worker = Stage.RUNNING, Status.EXECUTING, "", worker
            job.attempts_made += 1
            job.started_at, job.lease_until = now, now + CLAIM_EXPIRY
            job.first_started_at = job.first_started_at or now
        sql.write_jobs(_CLAIMED, jobs)
        apply(Effects(changed=jobs), now)
    return jobs


def renew(worker: str, ids: Collection[int], now: datetime) -> int:
    """Renew the claims on the jobs `ids`, which run in `worker`; returns how many it still has.

    Only those that it names: a claim whose commit was not answered is run by nobody.
    """
    return Job.objects.filter(id__in=ids, stage__in=IN_FLIGHT_STAGES, stage=Stage.RUNNING, worker=worker).update(
        lease_until=now + CLAIM_EXPIRY
    )


@transition(
    "finish",
    [Stage.RUNNING],
    {
        Stage.READY: (Status.PENDING, Status.RATE_LIMITED),
        Stage.SCHEDULED: (Status.PENDING, Status.RETRYING, Status.RATE_LIMITED),
        Stage.DONE: (Status.COMPLETED, Status.DEAD, Status.CANCELLED),
    },
    callers="worker",
    effects=["attempt", "timeline", "event", "wake-up", "dead letter", "dependants", "batch", "callback"],
)
def finish(ended: Sequence[Ended], worker: str) -> int:
    """Write how deliveries ended, many in one transaction; returns how many were still this worker's. A delivery that
    was declared lost changes nothing: its row no longer runs under that number.

    Owes the attempt, an event and a wake-up; for an end also its dependants, batch and callback, a dead letter for a
    dead job; a row of the timeline for all but completed and dead jobs. Leases are settled by the caller, before.
    """
    # By delivery too: a worker may have one that was given up and its successor at the same time.
    by_delivery = {(item.claimed.id, item.claimed.delivery): item for item in ended}
    ids = {item.claimed.id for item in ended}
    with transaction.atomic():
        ours = [
            (pk, delivery, "" if asked_at is None else reason or "cancelled")
            for pk, delivery, holder, asked_at, reason in sql.locked(_READ_BEFORE_FINISH, ids, Stage.RUNNING)
            if holder == worker and (pk, delivery) in by_delivery
        ]
        now = clock.now()
        effects = Effects(wake=True)
        jobs = []
        for pk, delivery, cancelled in ours:
            item = _with_own_refusal(_storable(by_delivery[pk, delivery]))
            job, result = item.claimed.job, item.result
            fate = decide(job, result, now, cancelled=cancelled)
            effects.attempts.append(_attempt(item, now))
            _carry(job, result, fate, now)
            jobs.append(job)
            _owe(effects, job, fate, now)
        effects.unblock = bool(effects.requeued)
        sql.write_jobs(_FINISHED, jobs)
        apply(effects, now)
    return len(ours)


def _owe(effects: Effects, job: Job, fate: Fate, now: datetime) -> None:
    effects.changed.append(job)
    if fate.status in (Status.RETRYING, Status.RATE_LIMITED, Status.CANCELLED, Status.PENDING):
        effects.step(job, now)
    if fate.status == Status.DEAD:
        effects.dead.append(job)
    if fate.final:
        effects.ended.append(job)
    elif fate.stage == Stage.READY:
        effects.requeued.add(job.group)


def _storable(item: Ended) -> Ended:
    """The end with nothing in it that SQL refuses: one such answer would hold up all that is written with it. The job
    is a copy, which is written to: a transaction that fails is repeated with the counters as they were."""
    result = item.result
    return Ended(
        replace(item.claimed, job=copy(item.claimed.job)),
        replace(
            result,
            result=kept(result.result),
            error=storable(result.error),
            traceback=storable(result.traceback),
        ),
    )


def _with_own_refusal(item: Ended) -> Ended:
    """A second account's refusal counts against the job: both refuse the request."""
    if item.result.category != "auth" or item.result.counted or item.claimed.job.refused_by is None:
        return item
    return Ended(item.claimed, replace(item.result, counted=True))


def _carry(job: Job, result: RunResult, fate: Fate, now: datetime) -> None:
    """Set the job's own fields as the fate has them."""
    if result.counted and result.outcome == AttemptOutcome.FAILED:
        job.attempts_counted += 1
    if result.category == "auth" and not result.counted:
        job.refused_by = job.account_id
    if result.returned:
        job.returns += 1
    elif result.outcome == AttemptOutcome.LOST and result.category == "poison":
        job.deaths += 1
        job.suspect = True
    job.stage, job.status, job.reason = fate.stage, fate.status, fate.reason
    # When the job may run again: its wait counts from then.
    job.not_before = now if fate.stage == Stage.READY and fate.not_before is None else fate.not_before
    if fate.final:
        job.finished_at = now
        job.suspect = False
    succeeded = result.outcome == AttemptOutcome.SUCCEEDED
    if succeeded or result.result is not None:
        job.result = result.result
    job.category = "" if succeeded else result.category
    job.error = "" if succeeded else result.error
    _let_go_of_delivery(job)


def _let_go_of_delivery(job: Job) -> None:
    job.worker, job.lease_until, job.account_lease, job.reservation = "", None, "", ""


def _attempt(item: Ended, now: datetime) -> Attempt:
    result, endpoint = item.result, item.claimed.endpoint
    return attempt_of(
        item.claimed.job,
        now,
        result.outcome,
        counted=result.counted,
        category=result.category,
        account=f"{endpoint.pool}/{endpoint.account}" if endpoint else "",
        status=result.status,
        error=result.error,
        traceback=result.traceback,
    )


@transition(
    "requeue",
    [Stage.RUNNING],
    {Stage.READY: (Status.PENDING,)},
    callers="worker that stops",
    effects=["attempt", "timeline", "event", "wake-up", "settlement"],
)
def requeue(deliveries: Mapping[int, int], worker: str, reason: str, *, suspect: bool) -> int:
    """Return the deliveries {job: number} that `worker` can't finish to the front of their groups; returns how many were
    still its own. Not counted as an attempt. `suspect`: any of them may be why the worker has to stop.

    Passed over: at-most-once jobs, which finish instead, and jobs with a cancel request, which the reconciler ends.
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
            _let_go_of_delivery(job)
            job.stage, job.status, job.reason, job.not_before = Stage.READY, Status.PENDING, reason, now
            if suspect:
                job.losses += 1
                job.suspect = job.suspect or registry.is_suspect(job.type, job.losses)
            effects.step(job, now)
            effects.requeued.add(job.group)
        sql.write_jobs(_LOST, jobs)
        apply(effects, now)
    return len(jobs)


_LOST = (
    "losses", "worker", "lease_until", "account_lease", "reservation", "stage", "status", "reason", "suspect",
    "finished_at", "category", "error", "not_before",
)  # fmt: skip


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
    at-most-once job dies, any other goes back to the front of its group under a new delivery number."""
    with transaction.atomic():
        jobs = list(
            Job.objects.filter(stage__in=IN_FLIGHT_STAGES, stage=Stage.RUNNING, lease_until__lt=now)
            .order_by("id")
            .select_for_update()[:LOST_AT_ONCE]
        )
        if not jobs:
            return 0
        effects = Effects(changed=jobs, unblock=True)
        for job in jobs:
            effects.lost_attempt(job, "Its worker was lost.", now)
            effects.settlements += lost(job)
            job.losses += 1
            _let_go_of_delivery(job)
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
        job.stage, job.status, job.finished_at, job.category = Stage.DONE, Status.DEAD, now, LOST
        job.error = job.reason = "Its worker was lost, and it asked for at most one delivery."
        effects.dead.append(job)  # the timeline shows a dead job from its own row
        effects.ended.append(job)
    else:
        job.stage, job.status, job.reason, job.not_before = Stage.READY, Status.PENDING, "its worker was lost", now
        job.suspect = job.suspect or registry.is_suspect(job.type, job.losses)
        effects.step(job, now)
        effects.requeued.add(job.group)


@transition("release_anew", [Stage.BELT], {Stage.READY: ()}, callers="reconciler", effects=["wake-up", "settlement"])
def release_anew(deliveries: Collection[tuple[int, int]], now: datetime) -> set[GroupKey]:
    """Make jobs ready again whose parcels no belt has, by id and delivery number. The status stays. Owes a wake-up and
    the return of what was reserved. Returns their groups."""
    with transaction.atomic():
        jobs = [
            job
            for job in Job.objects.filter(id__in=[pk for pk, _ in deliveries], stage=Stage.BELT)
            .order_by("id")
            .select_for_update()
            if (job.pk, job.delivery) in deliveries
        ]
        effects = Effects(requeued={job.group for job in jobs}, unblock=True)
        for job in jobs:
            effects.settlements += unused(job)
        Job.objects.filter(id__in=[job.pk for job in jobs]).update(
            stage=Stage.READY, reason="released anew: the belt had lost it", account_lease="", reservation=""
        )
        apply(effects, now)
    return effects.requeued
