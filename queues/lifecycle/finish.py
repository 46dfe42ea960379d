"""The transition of a delivery that its worker has finished."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from django.db import transaction

from queues.deliveries import Ended
from queues.lifecycle import sql
from queues.lifecycle.effects import AttemptRow, Effects, attempt_of, clear_delivery
from queues.lifecycle.fate import Fate, decide
from queues.lifecycle.perform import apply
from queues.lifecycle.table import transition
from queues.models import Job
from queues.payloads import kept, storable
from queues.registry import RunResult
from queues.states import AttemptOutcome, Stage, Status
from quotas import clock

_FINISHED = (
    "stage", "status", "reason", "not_before", "attempts_counted", "result", "category", "error", "finished_at",
    "lease_until", "worker", "account_lease", "reservation", "suspect", "deaths", "returns", "refused_by",
)  # fmt: skip
_COMPLETE = sql.ArrayUpdate(
    given={"g_delivery": "integer", "g_worker": "text", "g_result": "jsonb"},
    changes=f"""
        "stage" = {int(Stage.DONE)}, "status" = '{Status.COMPLETED.value}', "reason" = '', "not_before" = NULL,
        "result" = g_result, "category" = '', "error" = '', "finished_at" = g_now, "lease_until" = NULL, "worker" = '',
        "account_lease" = '', "reservation" = '', "suspect" = FALSE""",
    fence=f'job."stage" = {int(Stage.RUNNING)} AND job."delivery" = g_delivery AND job."worker" = g_worker',
    returning='"id", "delivery", "finished_at"',
)
_READ_BEFORE_FINISH = ("id", "delivery", "worker", "cancel_requested_at", "reason")


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
    completed = [item for item in ended if _is_plain(item)]
    others = [item for item in ended if not _is_plain(item)]
    return (_complete(completed, worker) if completed else 0) + (_finish(others, worker) if others else 0)


def _is_plain(item: Ended) -> bool:
    """Whether it is completed and has no callback."""
    return item.result.outcome == AttemptOutcome.SUCCEEDED and not item.claimed.job.callback_url


def _complete(ended: Sequence[Ended], worker: str) -> int:
    """The short path of most ends: the job becomes completed whatever its other columns are, so no row is read before."""
    results = {(item.claimed.id, item.claimed.delivery): _result_text(item) for item in ended}
    rows = [(pk, delivery, worker, result) for (pk, delivery), result in results.items()]
    with transaction.atomic():
        written = _COMPLETE.run(rows)
        if not written:
            return 0
        done = {pk: delivery for pk, delivery, _ in written}
        now = sql.read_moment(written[0][2])
        effects = Effects(wake=True)
        for item in ended:
            if done.get(item.claimed.id) == item.claimed.delivery:
                effects.attempts.append(_attempt(item, now))
                effects.changed.append(_completed(item.claimed.job, now))
        effects.ended = list(effects.changed)
        apply(effects, now)
    return len(done)


def _result_text(item: Ended) -> str | None:
    result = kept(item.result.result)
    return None if result is None else json.dumps(result)


def _completed(job: Job, now: datetime) -> Job:
    job = sql.duplicate(job)
    job.stage, job.status, job.reason, job.finished_at = Stage.DONE, Status.COMPLETED, "", now
    return job


def _finish(ended: Sequence[Ended], worker: str) -> int:
    """The path of all other ends: what happens next depends on the row as it is now."""
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


def _attempt(item: Ended, now: datetime) -> AttemptRow:
    result, endpoint = item.result, item.claimed.endpoint
    return attempt_of(
        item.claimed.job,
        now,
        result.outcome,
        counted=result.counted,
        category=result.category,
        account=f"{endpoint.pool}/{endpoint.account}" if endpoint else "",
        status=result.status,
        error=storable(result.error),
        traceback=storable(result.traceback),
    )
