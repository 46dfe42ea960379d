"""What follows from transitions: collected in `Effects`, then written and sent by `apply`, the only place that does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from django.db import transaction

from queues import config, settlement
from queues.deliveries import Ended
from queues.lifecycle import dead_letters, dependants, sql
from queues.models import Attempt, Job, Transition
from queues.payloads import storable
from queues.settlement import Settlement
from queues.states import AttemptOutcome, GroupKey
from queues.wakeups import notify
from quotas import events

MAX_REASON = 200
"""Characters of a reason that an event carries."""
WriteJobCallbacks = Callable[[Sequence[Job], datetime], None]
WriteBatchCallbacks = Callable[[Sequence[int], datetime], None]
_callback_writers: list[tuple[WriteJobCallbacks, WriteBatchCallbacks]] = []


class AttemptRow(NamedTuple):
    """A row of `Attempt`; the names are those of its columns."""

    job_id: int
    number: int
    delivery: int
    outcome: str
    counted: bool
    category: str
    account: str
    status: int | None
    error: str
    traceback: str
    worker: str
    ready_at: datetime | None
    dispatched_at: datetime | None
    started_at: datetime | None
    ended_at: datetime


class StepRow(NamedTuple):
    """A row of `Transition`."""

    job_id: int
    at: datetime
    state: str
    reason: str


@dataclass(slots=True)
class Effects:
    """What follows from the transitions of one transaction."""

    attempts: list[AttemptRow] = field(default_factory=list)
    steps: list[StepRow] = field(default_factory=list)
    """Rows for the timeline."""
    dead: list[Job] = field(default_factory=list)
    """Jobs that get a dead letter."""
    ended: list[Job] = field(default_factory=list)
    """Jobs that have ended: their dependants, batches and callbacks follow."""
    ended_before: list[int] = field(default_factory=list)
    """Jobs that ended earlier: only their dependants follow."""
    batches: set[int] = field(default_factory=set)
    """Batches that may be complete, besides those of the ended jobs."""
    changed: list[Job] = field(default_factory=list)
    """Jobs whose status or reason changed: each gets a `JobChanged` event."""
    submitted: Counter[tuple[int, int]] = field(default_factory=Counter)
    """New jobs by queue and project: each pair gets a `JobsSubmitted` event."""
    appended: set[GroupKey] = field(default_factory=set)
    """Groups with new jobs at their ends."""
    requeued: set[GroupKey] = field(default_factory=set)
    """Groups into which older jobs came back."""
    wake: bool = False
    """Wake the dispatcher even if no group changed."""
    unblock: bool = False
    """Capacity may be free before its time."""
    settlements: list[Settlement] = field(default_factory=list)
    """Leases and reservations to be settled after the commit."""

    def step(self, job: Job, now: datetime, reason: str | None = None) -> None:
        """Add a row to the job's timeline: its present status, with its reason or another one."""
        self.steps.append(StepRow(job.pk, now, job.status, (job.reason if reason is None else reason)[:500]))

    def lost_attempt(self, job: Job, error: str, now: datetime) -> None:
        """Add the attempt of a delivery whose worker ended before it did; it is not counted."""
        self.attempts.append(attempt_of(job, now, AttemptOutcome.LOST, counted=False, error=error))


def clear_delivery(job: Job) -> None:
    """Clear what belongs to the job's present delivery."""
    job.worker, job.lease_until, job.account_lease, job.reservation = "", None, "", ""


def attempt_of(
    job: Job,
    now: datetime,
    outcome: str,
    *,
    counted: bool,
    category: str = "",
    account: str = "",
    status: int | None = None,
    error: str = "",
    traceback: str = "",
) -> AttemptRow:
    """The row of one attempt, which ended now; `job` still names the worker that ran it."""
    return AttemptRow(
        job_id=job.pk,
        number=job.attempts_made,
        delivery=job.delivery,
        outcome=outcome,
        counted=counted,
        category=category,
        account=account,
        status=status,
        error=error,
        traceback=traceback,
        worker=job.worker,
        ready_at=job.not_before,
        dispatched_at=job.dispatched_at,
        started_at=job.started_at,
        ended_at=now,
    )


def write_callbacks_with(jobs: WriteJobCallbacks, batches: WriteBatchCallbacks) -> None:
    """Register the functions that write the callback rows of ended jobs with a `callback_url` and of complete batches, since
    their content is the API's."""
    _callback_writers[:] = [(jobs, batches)]


def attempt_of_end(item: Ended, now: datetime) -> AttemptRow:
    """The row of an attempt that its worker has finished."""
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


def apply(effects: Effects, now: datetime) -> None:
    """Write all that the transitions of the open transaction owe; events, wake-ups and settlements follow the commit.

    Rows are locked in one order: jobs, then batches.
    """
    sql.insert_many(Attempt, AttemptRow._fields, effects.attempts)
    if effects.dead:
        dead_letters.write(effects.dead, now)
    if effects.ended or effects.ended_before:
        held = sql.held_for([*(job.pk for job in effects.ended), *effects.ended_before])
        if held:
            _follow(effects, held, now)
    sql.insert_many(Transition, StepRow._fields, effects.steps)
    (write_job_callbacks, write_batch_callbacks) = _callback_writers[0]
    if effects.ended:
        owed = [job for job in effects.ended if job.callback_url]
        if owed:
            write_job_callbacks(owed, now)
        effects.batches.update(job.batch_id for job in effects.ended if job.batch_id is not None)
    if effects.batches:
        complete, released = dependants.complete_batches(sorted(effects.batches), now)
        effects.requeued |= released
        if complete:
            write_batch_callbacks(complete, now)
    _after_commit(effects)


def _follow(effects: Effects, held: Collection[int], now: datetime) -> None:
    """Release or cancel the jobs that waited for the ended ones. What is cancelled has ended as well."""
    cancelled, released = dependants.follow(held, now)
    for job in cancelled:
        effects.step(job, now)
    effects.ended += cancelled
    effects.changed += cancelled
    effects.requeued |= released


def _after_commit(effects: Effects) -> None:
    if effects.changed or effects.submitted:
        cfg = config.current()
        found: list[events.Event] = [_submitted(*place, count, cfg) for place, count in effects.submitted.items()]
        found += [_changed(job, cfg) for job in effects.changed]
        transaction.on_commit(lambda: events.emit_all(found))
    if effects.settlements:
        transaction.on_commit(lambda: settlement.settle(effects.settlements))
    if effects.requeued or effects.unblock:
        transaction.on_commit(lambda: notify(effects.requeued, requeued=True, unblock=effects.unblock))
    if effects.appended or (effects.wake and not (effects.requeued or effects.unblock)):
        transaction.on_commit(lambda: notify(effects.appended))


def _submitted(queue: int, project: int, count: int, cfg: config.QueueConfig) -> events.JobsSubmitted:
    return events.JobsSubmitted(_queue_name(queue, cfg), count, project=_project_slug(project, cfg))


def _changed(job: Job, cfg: config.QueueConfig) -> events.JobChanged:
    return events.JobChanged(
        job.uid,
        _queue_name(job.queue_id, cfg),
        job.type,
        job.status,
        job.reason[:MAX_REASON],
        project=_project_slug(job.project_id, cfg),
    )


def _queue_name(pk: int, cfg: config.QueueConfig) -> str:
    queue = cfg.queues.get(pk)
    return queue.name if queue else ""


def _project_slug(pk: int, cfg: config.QueueConfig) -> str:
    project = cfg.projects.get(pk)
    return project.slug if project else ""
