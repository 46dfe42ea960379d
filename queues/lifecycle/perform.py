"""Performs the effects of transitions: rows, events, wake-ups, settlements. The only place that does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from django.db import transaction

from queues import config, settlement
from queues.lifecycle import dead_letters, dependants, sql
from queues.lifecycle.effects import AttemptRow, Effects, StepRow
from queues.models import Attempt, Job, Transition
from queues.sql import insert_many
from queues.wakeups import notify
from quotas import events

MAX_REASON = 200
"""Characters of a reason that an event carries."""
WriteJobCallbacks = Callable[[Sequence[Job], datetime], None]
WriteBatchCallbacks = Callable[[Sequence[int], datetime], None]
_callback_writers: list[tuple[WriteJobCallbacks, WriteBatchCallbacks]] = []


def write_callbacks_with(jobs: WriteJobCallbacks, batches: WriteBatchCallbacks) -> None:
    """Register the functions that write the callback rows of ended jobs with a `callback_url` and of complete batches, since
    their content is the API's."""
    _callback_writers[:] = [(jobs, batches)]


def apply(effects: Effects, now: datetime) -> None:
    """Write all that the transitions of the open transaction owe; events, wake-ups and settlements follow the commit.

    Rows are locked in one order: jobs, then batches.
    """
    insert_many(Attempt, AttemptRow._fields, effects.attempts)
    if effects.dead:
        dead_letters.write(effects.dead, now)
    if effects.ended or effects.ended_before:
        held = sql.held_for([*(job.pk for job in effects.ended), *effects.ended_before])
        if held:
            dependants.follow(effects, held, now)
    insert_many(Transition, StepRow._fields, effects.steps)
    (write_job_callbacks, write_batch_callbacks) = _callback_writers[0]
    if effects.ended:
        owed = [job for job in effects.ended if job.callback_url]
        if owed:
            write_job_callbacks(owed, now)
        effects.batches.update(job.batch_id for job in effects.ended if job.batch_id is not None)
    if effects.batches:
        complete = dependants.complete_batches(effects, sorted(effects.batches), now)
        if complete:
            write_batch_callbacks(complete, now)
    _after_commit(effects)


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
