"""Why a queue is paused, by whom and since when; how much of its concurrency is in use."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Max

from controlplane.models import AuditEntry
from queues.models import Queue


@dataclass(frozen=True, slots=True)
class Pause:
    """A pause or a drain. `actor` is empty where the audit log names no actor."""

    state: str
    since: datetime | None
    reason: str
    actor: str


def pauses(queues: Iterable[Queue]) -> dict[int, Pause]:
    """By primary key, of paused and draining queues. The actor is read from the audit log."""
    idle = [queue for queue in queues if queue.state != "running"]
    if not idle:
        return {}
    targets = [f"queue:{queue.name}" for queue in idle]
    newest = AuditEntry.objects.filter(target__in=targets, verb__in=["queue.pause", "queue.drain"]).order_by()
    last = [row["last"] for row in newest.values("target", "verb").annotate(last=Max("pk"))]
    actors = {(one.target, one.verb): one.actor for one in AuditEntry.objects.filter(pk__in=last)}
    return {
        queue.pk: Pause(
            queue.state,
            queue.paused_at or queue.draining_at,
            queue.paused_reason if queue.paused_at else queue.draining_reason,
            actors.get((f"queue:{queue.name}", "queue.pause" if queue.paused_at else "queue.drain"), ""),
        )
        for queue in idle
    }


def utilisation(queue: Queue, running: int) -> int | None:
    """Per cent of the queue's concurrency in use; None if it is not limited."""
    return round(100 * running / queue.concurrency) if queue.concurrency else None
