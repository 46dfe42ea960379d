"""How many jobs may be in flight at once: what the live workers can run, and what each queue allows."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from django.db import connection

from queues import config, liveness
from queues.dispatcher.wait_ledger import Cause
from queues.states import IN_FLIGHT_STAGES


@dataclass(slots=True)
class WorkerCapacity:
    """Free worker slots, counted down as jobs are admitted.

    A job that needs an account is released only for a slot that is free, since the account's capacity is reserved from
    its admission on. Other jobs may wait on the belt, as many again as there are slots, so that no thread waits for the
    dispatcher.
    """

    available: dict[str, int] = field(default_factory=dict)
    """Free slots by worker lane."""
    prefetch: dict[str, int] = field(default_factory=dict)
    """Jobs that may wait on the belt beside them, by worker lane."""
    workers: dict[str, int] = field(default_factory=dict)
    """Worker processes by lane."""
    in_queue: dict[int, int] = field(default_factory=dict)
    """Jobs in flight by queue."""

    def has_room(self) -> bool:
        """Whether any job at all could be released."""
        return any(self.available[lane] + self.prefetch.get(lane, 0) > 0 for lane in self.available)

    def shortage(self, queue: config.QueueSpec, lane: str, *, pooled: bool) -> Cause | None:
        """Why no more job of the queue has a slot; None where one has. `pooled`: it needs an account."""
        if queue.concurrency is not None and self.in_queue.get(queue.id, 0) >= queue.concurrency:
            return "queue_concurrency", queue.name
        if self.available.get(lane, 0) + (0 if pooled else self.prefetch.get(lane, 0)) <= 0:
            return ("worker_slot" if self.workers.get(lane) else "no_worker"), lane
        return None

    def reserve(self, queue: config.QueueSpec, lane: str) -> None:
        """Take a slot for a job of the queue."""
        self.available[lane] = self.available.get(lane, 0) - 1
        self.in_queue[queue.id] = self.in_queue.get(queue.id, 0) + 1

    def release(self, queue: config.QueueSpec, lane: str) -> None:
        """Return the slot of a job that is not released after all."""
        self.available[lane] = self.available.get(lane, 0) + 1
        self.in_queue[queue.id] = self.in_queue.get(queue.id, 0) - 1


_IN_FLIGHT = (
    f'SELECT "queue_id", "suspect", count(*) FROM "queues_job" WHERE "stage" IN ({", ".join(str(int(one)) for one in IN_FLIGHT_STAGES)})'  # noqa: S608
    " GROUP BY 1, 2"
)


def count_capacity(now: datetime) -> WorkerCapacity:
    """Read it from SQL: what live workers reported, less what is on the belt or running."""
    capacity = WorkerCapacity()
    for lane, count in liveness.alive(now).values_list("lane", "places"):
        capacity.available[lane] = capacity.available.get(lane, 0) + count
        capacity.prefetch[lane] = capacity.prefetch.get(lane, 0) + count
        capacity.workers[lane] = capacity.workers.get(lane, 0) + 1
    queues = config.current().queues
    with connection.cursor() as cursor:
        cursor.execute(_IN_FLIGHT)
        in_flight = cursor.fetchall()
    for queue_id, suspect, count in in_flight:
        capacity.in_queue[queue_id] = capacity.in_queue.get(queue_id, 0) + count
        lane = "cpu" if suspect else queues[queue_id].lane if queue_id in queues else "io"
        capacity.available[lane] = capacity.available.get(lane, 0) - count
    return capacity
