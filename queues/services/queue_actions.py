"""Pauses, resumes, drains and tunes queues, with actor and reason in the audit trail."""

from __future__ import annotations

from django.db import transaction

from queues.lifecycle.delivery import QUEUE_PAUSED, release_again
from queues.models import Job, Queue
from queues.services import queue_room
from queues.states import IN_FLIGHT_STAGES, Stage
from queues.wakeups import notify
from quotas import clock, events


def pause(queue: Queue, *, actor: str, reason: str) -> Queue:
    """Start no more jobs, also none that waits for a worker's slot; running jobs finish, and new jobs are accepted."""
    with transaction.atomic():
        row = _change(queue, "queue.pause", actor, reason, paused_at=clock.now(), paused_reason=reason[:500])
        on_belt = Job.objects.filter(stage__in=IN_FLIGHT_STAGES, stage=Stage.BELT, queue=row)
        release_again(set(on_belt.values_list("id", "delivery")), clock.now(), QUEUE_PAUSED)
    return row


def resume(queue: Queue, *, actor: str, reason: str) -> Queue:
    """End a pause and a drain."""
    return _change(
        queue, "queue.resume", actor, reason, paused_at=None, paused_reason="", draining_at=None, draining_reason=""
    )


def drain(queue: Queue, *, actor: str, reason: str) -> Queue:
    """Accept no new jobs; finish the present ones."""
    return _change(queue, "queue.drain", actor, reason, draining_at=clock.now(), draining_reason=reason[:500])


def set_concurrency(queue: Queue, concurrency: int | None, *, actor: str, reason: str) -> Queue:
    """Let at most so many of its jobs run at once; None: as many as the workers' slots allow."""
    with transaction.atomic():
        row = Queue.objects.select_for_update(of=("self",)).get(pk=queue.pk)
        before, row.concurrency = row.concurrency, concurrency
        if before != concurrency:
            row.save()
            facts = ({"concurrency": before}, {"concurrency": concurrency})
            events.emit(events.OperatorActed(actor, "queue.change", f"queue:{row.name}", *facts, reason))
            transaction.on_commit(lambda: notify(unblock=True))
    return row


def _change(queue: Queue, verb: str, actor: str, reason: str, **fields: object) -> Queue:
    with transaction.atomic():
        queue_room.lock(queue.pk)  # a submit that has seen the state before commits first
        row = Queue.objects.select_for_update(of=("self",)).get(pk=queue.pk)
        before = {"state": row.state}
        for name, value in fields.items():
            if value is not None and name.endswith("_at") and getattr(row, name) is not None:
                continue  # paused twice: it is paused since the first time
            setattr(row, name, value)
        row.save()
        events.emit(events.OperatorActed(actor, verb, f"queue:{row.name}", before, {"state": row.state}, reason))
        events.emit(events.QueueChanged(queue=row.name, state=row.state, why=reason))
        transaction.on_commit(lambda: notify(unblock=True))
    return row
