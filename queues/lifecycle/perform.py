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
    if effects.changed:
        cfg = config.current()
        changed = [_changed(job, cfg) for job in effects.changed]
        transaction.on_commit(lambda: events.emit_all(changed))
    if effects.settlements:
        transaction.on_commit(lambda: settlement.settle(effects.settlements))
    if effects.requeued or effects.unblock:
        transaction.on_commit(lambda: notify(effects.requeued, requeued=True, unblock=effects.unblock))
    if effects.appended or (effects.wake and not (effects.requeued or effects.unblock)):
        transaction.on_commit(lambda: notify(effects.appended))


def _changed(job: Job, cfg: config.QueueConfig) -> events.JobChanged:
    queue, project = cfg.queues.get(job.queue_id), cfg.projects.get(job.project_id)
    return events.JobChanged(
        job.uid,
        queue.name if queue else "",
        job.type,
        job.status,
        job.reason[:MAX_REASON],
        project=project.slug if project else "",
    )
