"""How many jobs may be on their way at once: what the live workers can take, and what each queue allows."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from django.db.models import Count

from queues import config, liveness
from queues.models import Job
from queues.states import IN_FLIGHT_STAGES


@dataclass(slots=True)
class Places:
    """Free places, counted down as jobs are granted.

    Jobs that need an account are released for a free place only, since an account's capacity is reserved from then
    on. Others may wait on the belt, as many again as there are places, so that no thread waits for the dispatcher.
    """

    free: dict[str, int] = field(default_factory=dict)
    ahead: dict[str, int] = field(default_factory=dict)
    workers: dict[str, int] = field(default_factory=dict)
    in_queue: dict[int, int] = field(default_factory=dict)

    def any(self) -> bool:
        """Whether any job at all could be granted."""
        return any(self.free[lane] + self.ahead.get(lane, 0) > 0 for lane in self.free)

    def allows(self, queue: config.QueueSpec, lane: str, *, pooled: bool) -> bool:
        """Whether one more job of the queue finds a place."""
        if self.free.get(lane, 0) + (0 if pooled else self.ahead.get(lane, 0)) <= 0:
            return False
        return queue.concurrency is None or self.in_queue.get(queue.id, 0) < queue.concurrency

    def take(self, queue: config.QueueSpec, lane: str) -> None:
        self.free[lane] = self.free.get(lane, 0) - 1
        self.in_queue[queue.id] = self.in_queue.get(queue.id, 0) + 1

    def give(self, queue: config.QueueSpec, lane: str) -> None:
        self.free[lane] = self.free.get(lane, 0) + 1
        self.in_queue[queue.id] = self.in_queue.get(queue.id, 0) - 1


def count_places(now: datetime) -> Places:
    """Read them from SQL: what workers reported, less what is on the belt or running."""
    places = Places()
    for lane, count in liveness.alive(now).values_list("lane", "places"):
        places.free[lane] = places.free.get(lane, 0) + count
        places.ahead[lane] = places.ahead.get(lane, 0) + count
        places.workers[lane] = places.workers.get(lane, 0) + 1
    queues = config.current().queues
    flying = (
        Job.objects.filter(stage__in=IN_FLIGHT_STAGES)
        .order_by()
        .values_list("queue_id", "suspect")
        .annotate(count=Count("id"))
    )
    for queue_id, suspect, count in flying:
        places.in_queue[queue_id] = places.in_queue.get(queue_id, 0) + count
        lane = "cpu" if suspect else queues[queue_id].lane if queue_id in queues else "io"
        places.free[lane] = places.free.get(lane, 0) - count
    return places
