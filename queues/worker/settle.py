"""Ending deliveries in SQL: many in one transaction, each fenced by its delivery number.

What an owner that was declared lost brings here changes nothing: its row is no longer running under that number.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from django.db import connection, transaction

from queues import config
from queues.announcement import announce
from queues.connection import Group, ring
from queues.models import Attempt, Job, JobDependency, Transition
from queues.payloads import kept, storable
from queues.registry import RunResult
from queues.retry import LEAST_WAIT, limited_delay, next_delay
from queues.rows import locked
from queues.services import batches, callbacks, dead_letters, dependencies
from queues.states import Outcome, Stage, Status
from queues.worker.claim import Claimed
from quotas import clock


@dataclass(frozen=True, slots=True)
class Ended:
    """A delivery that has ended here."""

    claimed: Claimed
    result: RunResult


@dataclass(slots=True)
class Fate:
    """Where a job goes next."""

    stage: Stage
    status: Status
    reason: str = ""
    not_before: datetime | None = None
    final: bool = False


def decide(job: Job, result: RunResult, now: datetime, *, cancelled: str) -> Fate:
    """What becomes of a job after `result`; `job` has its counters as they were before. `cancelled`: by whom and why,
    empty where nobody asked for it."""
    if result.outcome == Outcome.SUCCEEDED:
        return Fate(Stage.DONE, Status.COMPLETED, final=True)
    if cancelled or result.outcome == Outcome.CANCELLED:
        return Fate(Stage.DONE, Status.CANCELLED, f"{cancelled or 'cancelled'}, while it ran", final=True)
    if result.returned:
        return _fate_of_returned(job, result, now)
    if result.outcome == Outcome.LOST:
        return _fate_of_lost(job, result)
    if result.category == "auth" and job.refused_by is not None:
        return Fate(Stage.DONE, Status.DEAD, f"two accounts were refused; auth: {result.error}"[:500], final=True)
    if not result.counted and result.category == "auth":
        return Fate(Stage.READY, Status.PENDING, f"another account will do it; {result.category}: {result.error}"[:500])
    if not result.counted:
        return _fate_of_limited(job, result, now)
    if job.delivery_mode == "at_most_once":
        reason = f"{result.category}: {result.error}"[:420]
        return Fate(Stage.DONE, Status.DEAD, f"{reason}; it asked for at most one delivery", final=True)
    if result.final:
        return Fate(Stage.DONE, Status.DEAD, f"{result.category}: {result.error}"[:500], final=True)
    policy = config.current().queues[job.queue_id].retry
    failures = job.attempts_counted + 1
    delay = next_delay(policy, result.category, failures, max_attempts=job.max_attempts, hint=result.retry_after)
    if delay is None:
        return Fate(Stage.DONE, Status.DEAD, f"{result.category}: {result.error}"[:500], final=True)
    reason = f"{result.category}: {result.error}"[:420]
    return Fate(
        Stage.SCHEDULED, Status.RETRYING, f"{reason}; attempt {failures + 1} of {job.max_attempts} in {delay:.1f} s",
        now + timedelta(seconds=delay),
    )  # fmt: skip


def _fate_of_limited(job: Job, result: RunResult, now: datetime) -> Fate:
    """It met a limit or a dead account. With an account it goes back into its lane, where admission knows how long the
    limit lasts; without one only the job's own time bounds how often it comes round. That holds also where it meets
    one limit after the other: a limit that admission does not see must not make it run without a pause."""
    reason = f"{result.category}: {result.error}"
    meetings = job.attempts_made - job.attempts_counted
    if job.account_lease and meetings <= MEETINGS_AT_ONCE:
        return Fate(Stage.READY, Status.RATE_LIMITED, reason[:500])
    if job.account_lease:
        delay = LEAST_WAIT
    else:
        policy = config.current().queues[job.queue_id].retry
        delay = limited_delay(policy, result.category, meetings, hint=result.retry_after)
    at = now + timedelta(seconds=delay)
    return Fate(Stage.SCHEDULED, Status.RATE_LIMITED, f"{reason[:420]}, until {at:%Y-%m-%dT%H:%M:%SZ}", at)


MEETINGS_AT_ONCE = 10
"""Limits that a job with an account may meet before it waits a moment each time: so many accounts it tries at once."""


MAX_DEATHS = 2
"""Forked processes that a job may take down with it before it is given up as poison."""


MAX_RETURNS = 20
"""Workers that may pass a job on because they don't know its type; with the waits in between, some 15 minutes."""
LONGEST_RETURN = 60.0


def _fate_of_returned(job: Job, result: RunResult, now: datetime) -> Fate:
    """Another worker may know what this one doesn't: while a deployment goes on, some are newer than others."""
    if job.returns + 1 >= MAX_RETURNS:
        return Fate(Stage.DONE, Status.DEAD, f"{result.error} So it was {job.returns + 1} times."[:500], final=True)
    wait = min(2.0**job.returns, LONGEST_RETURN)
    return Fate(
        Stage.SCHEDULED, Status.PENDING, f"{result.error} It is tried again in {wait:g} s."[:500],
        now + timedelta(seconds=wait),
    )  # fmt: skip


def _fate_of_lost(job: Job, result: RunResult) -> Fate:
    """Its process died under it, and nothing else ran there: that is the job's own doing. Or, where it may be
    delivered once only, its worker had to stop."""
    if job.delivery_mode == "at_most_once":
        return Fate(Stage.DONE, Status.DEAD, f"{result.error} It asked for at most one delivery."[:500], final=True)
    if job.deaths + 1 >= MAX_DEATHS:
        return Fate(Stage.DONE, Status.DEAD, f"its process died {job.deaths + 1} times", final=True)
    return Fate(Stage.READY, Status.PENDING, "its process died; it runs once more, alone")


_UPDATE = (
    "UPDATE queues_job SET stage=%s, status=%s, reason=%s, not_before=%s, attempts_counted=%s, result=%s, category=%s,"
    " error=%s, finished_at=%s, lease_until=NULL, worker='', account_lease='', reservation='', suspect=%s, deaths=%s, returns=%s, refused_by=%s WHERE id=%s"
)


HELD = ("id", "delivery", "worker", "cancel_requested_at", "reason")


def settle(ended: Sequence[Ended], worker: str) -> int:
    """Write how deliveries ended; returns how many were still this worker's."""
    # By delivery too: a worker may hold one that was given up and its successor at the same time.
    by_delivery = {(item.claimed.id, item.claimed.delivery): item for item in ended}
    ids = {item.claimed.id for item in ended}
    with transaction.atomic():
        held = [
            (pk, delivery, "" if asked_at is None else reason or "cancelled")
            for pk, delivery, holder, asked_at, reason in locked(HELD, ids, Stage.RUNNING)
            if holder == worker and (pk, delivery) in by_delivery
        ]
        now = clock.now()
        rows, attempts, steps, dead, finished, changed, back, timed = [], [], [], [], [], [], set(), False
        for pk, delivery, cancelled in held:
            item = _with_own_refusal(_storable(by_delivery[pk, delivery]))
            job, result = item.claimed.job, item.result
            fate = decide(job, result, now, cancelled=cancelled)
            _carry(job, result, fate, now)
            attempts.append(_attempt(item, now))
            rows.append(
                (fate.stage, fate.status, fate.reason, _ready_at(fate, now), job.attempts_counted,
                 None if job.result is None else _json(job.result), job.category, job.error, job.finished_at,
                 job.suspect, job.deaths, job.returns, job.refused_by, pk)
            )  # fmt: skip
            if fate.status in (Status.RETRYING, Status.RATE_LIMITED, Status.CANCELLED, Status.PENDING):
                steps.append(Transition(job=job, at=now, state=fate.status, reason=fate.reason))
            if fate.status == Status.DEAD:
                dead.append(job)
            changed.append(job)
            if fate.final:
                finished.append(job)
            elif fate.stage == Stage.READY:
                back.add((job.queue_id, job.priority, job.project_id, job.pool))
            else:
                timed = True
        with connection.cursor() as cursor:
            cursor.executemany(_UPDATE, rows)
        Attempt.objects.bulk_create(attempts)
        if steps:
            Transition.objects.bulk_create(steps)
        if dead:
            dead_letters.write(dead, now)
        close(finished, now)
        announce(changed)
        transaction.on_commit(lambda: _tell(back, timed))
    return len(held)


def _ready_at(fate: Fate, now: datetime) -> datetime | None:
    """When the job may run again: its wait counts from then."""
    return now if fate.stage == Stage.READY and fate.not_before is None else fate.not_before


def _storable(item: Ended) -> Ended:
    """The end with nothing in it that SQL refuses: one such answer would hold up all that is settled with it. The job
    is a copy, which is written to: a settle that fails is repeated with the counters as they were."""
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
    """A second account's refusal is held against the job: it is what was asked for that both refuse."""
    if item.result.category != "auth" or item.result.counted or item.claimed.job.refused_by is None:
        return item
    return Ended(item.claimed, replace(item.result, counted=True))


def close(finished: Sequence[Job], now: datetime) -> None:
    """What follows from jobs that have ended: those that waited for them, and batches that are complete."""
    if not finished:
        return
    ids = [job.pk for job in finished]
    if JobDependency.objects.filter(after_id__in=ids).exists():
        dependencies.settle_ended(ids)
    callbacks.note_jobs(finished, now)
    ended = batches.finish_ended(sorted({job.batch_id for job in finished if job.batch_id is not None}), now)
    callbacks.note_batches(ended, now)


def _tell(back: set[Group], timed: bool) -> None:
    # One ring for a whole batch: places are free, and perhaps accounts and slots.
    ring(back, again=True, unblock=bool(back))


def _json(value: object) -> str:
    return json.dumps(value)


def _carry(job: Job, result: RunResult, fate: Fate, now: datetime) -> None:
    """Set the job's own fields as the fate has them."""
    if result.counted and result.outcome == Outcome.FAILED:
        job.attempts_counted += 1
    if result.category == "auth" and not result.counted:
        job.refused_by = job.account_id
    if result.returned:
        job.returns += 1
    elif result.outcome == Outcome.LOST and result.category == "poison":
        job.deaths += 1
        job.suspect = True
    job.stage, job.status, job.reason = fate.stage, fate.status, fate.reason
    if fate.final:
        job.finished_at = now
        job.suspect = False
    succeeded = result.outcome == Outcome.SUCCEEDED
    if succeeded or result.result is not None:
        job.result = result.result
    job.category = "" if succeeded else result.category
    job.error = "" if succeeded else result.error


def _attempt(item: Ended, now: datetime) -> Attempt:
    job, result, way = item.claimed.job, item.result, item.claimed.endpoint
    return Attempt(
        job=job,
        number=job.attempts_made,
        delivery=job.delivery,
        outcome=result.outcome,
        counted=result.counted,
        category=result.category,
        account=f"{way.pool}/{way.account}" if way else "",
        status=result.status,
        error=result.error,
        traceback=result.traceback,
        worker=job.worker,
        dispatched_at=job.dispatched_at,
        started_at=job.started_at,
        ended_at=now,
    )
