"""Ends of deliveries that are no plain completion: what happens next depends on the job's row and its retry policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from django.db import transaction

from queues.deliveries import Ended
from queues.lifecycle import sql
from queues.lifecycle.effects import Effects, apply, attempt_of_end, clear_delivery
from queues.lifecycle.fate import Fate, decide
from queues.models import Job
from queues.payloads import kept, storable
from queues.registry import RunResult
from queues.states import AttemptOutcome, Stage, Status
from quotas import clock

_FINISHED = (
    "stage", "status", "reason", "not_before", "attempts_counted", "result", "category", "error", "finished_at",
    "lease_until", "worker", "account_lease", "reservation", "suspect", "deaths", "returns", "refused_by",
)  # fmt: skip
_READ_BEFORE_FINISH = ("id", "delivery", "worker", "cancel_requested_at", "reason")


def finish_by_fate(ended: Sequence[Ended], worker: str) -> int:
    """`delivery.finish` for these: each row is locked and read, and `fate` decides where its job goes."""
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
            effects.attempts.append(attempt_of_end(item, now))
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
    """The end without anything that SQL refuses, since one such value would delay all that is written with it. Its job
    is a copy, so that a transaction that fails can be repeated with the same counters."""
    result = item.result
    return Ended(
        replace(item.claimed, job=sql.duplicate(item.claimed.job)),
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
    """Set the job's fields."""
    if result.counted and result.outcome == AttemptOutcome.FAILED:
        job.attempts_counted += 1
    if result.category == "auth" and not result.counted:
        job.refused_by = job.account_id
    if result.returned:
        job.returns += not result.no_slot
    elif result.outcome == AttemptOutcome.LOST and result.category == "poison":
        job.deaths += 1
        job.suspect = True
    job.stage, job.status, job.reason = fate.stage, fate.status, fate.reason
    # Since when the job is ready: its wait is measured from then.
    job.not_before = now if fate.stage == Stage.READY and fate.not_before is None else fate.not_before
    if fate.final:
        job.finished_at = now
        job.suspect = False
    succeeded = result.outcome == AttemptOutcome.SUCCEEDED
    if succeeded or result.result is not None:
        job.result = result.result
    job.category = "" if succeeded else result.category
    job.error = "" if succeeded else result.error
    clear_delivery(job)
