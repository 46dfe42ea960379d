"""How many jobs may be in flight at once: what the live workers can run, what each queue allows, which pools are blocked.

A pool that denied a candidate gets none until its time has come, and then one at first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from django.db import connection

from queues import config, liveness
from queues.dispatcher.wait_ledger import Cause
from queues.states import IN_FLIGHT_STAGES

PREFETCH_TIME = 0.1
"""Seconds of work that may wait on the belt: about twice the time between two cycles under load."""
MOST_PREFETCH = 4
"""Jobs on the belt at most, per slot."""
PACE_TIME = 0.3
"""Seconds over which the pace is averaged."""
STEADY_TIME = 10.0
"""The same, for jobs that end together every few seconds."""
SOON = 1.0
"""Seconds within which jobs on the belt start, also where jobs are slow: a more urgent job waits no longer than that."""
MAX_BATCH = 64
"""Candidates admitted in one round trip at most."""


@dataclass(slots=True)
class Pace:
    """How many jobs a second the workers of each lane end, as the dispatcher sees it between its cycles."""

    per_second: dict[str, float] = field(default_factory=dict)
    steady: dict[str, float] = field(default_factory=dict)
    """Over a longer time."""
    _in_flight: dict[str, int] = field(default_factory=dict)
    """After the last cycle, by lane."""
    _at: float = float("-inf")

    def begin_cycle(self, in_flight: Mapping[str, int], moment: float) -> None:
        """Take in what is in flight at the beginning of a cycle, by lane. `moment`: monotonic seconds."""
        seconds = max(moment - self._at, 0.001)
        for lane, before in self._in_flight.items():
            pace = (before - in_flight.get(lane, 0)) / seconds
            for averages, time in ((self.per_second, PACE_TIME), (self.steady, STEADY_TIME)):
                known = averages.get(lane, 0.0)
                averages[lane] = known + (pace - known) * min(seconds / time, 1.0)

    def end_cycle(self, in_flight: Mapping[str, int], moment: float) -> None:
        """Remember what is in flight at the end of a cycle."""
        self._in_flight, self._at = dict(in_flight), moment

    def prefetch(self, slots: Mapping[str, int]) -> dict[str, int]:
        """How many jobs may wait on the belt, by lane: as many as end within `SOON`, but no more than the lane has slots;
        beyond that where jobs end faster than cycles follow each other. None before any has ended: they may take hours."""
        return {
            lane: max(
                min(int(self.per_second.get(lane, 0.0) * PREFETCH_TIME), count * MOST_PREFETCH),
                min(round(self.steady.get(lane, 0.0) * SOON), count),
            )
            for lane, count in slots.items()
        }


@dataclass(slots=True)
class WorkerCapacity:
    """Free worker slots, counted down as jobs are admitted.

    A job that needs an account is released only for a slot that is free, since the account's capacity is reserved from
    its admission on. Other jobs may wait on the belt, so that no thread waits for the dispatcher.
    """

    slots: dict[str, int] = field(default_factory=dict)
    """Slots of live workers by lane."""
    available: dict[str, int] = field(default_factory=dict)
    """Free slots by worker lane."""
    prefetch: dict[str, int] = field(default_factory=dict)
    """Jobs that may wait on the belt beside them, by worker lane."""
    workers: dict[str, int] = field(default_factory=dict)
    """Worker processes by lane."""
    in_queue: dict[int, int] = field(default_factory=dict)
    """Jobs in flight by queue."""

    def in_flight(self) -> dict[str, int]:
        """Jobs on the belt or running, by lane."""
        return {lane: slots - self.available[lane] for lane, slots in self.slots.items()}

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


_STAGES = ", ".join(str(int(one)) for one in IN_FLIGHT_STAGES)
_SLOTS_AND_IN_FLIGHT = (
    f'SELECT "lane", NULL, NULL, sum("places"), count(*) FROM "queues_workerprocess" WHERE {liveness.ALIVE} GROUP BY "lane"'  # noqa: S608
    f' UNION ALL SELECT NULL, "queue_id", "suspect", count(*), 0 FROM "queues_job" WHERE "stage" IN ({_STAGES})'
    ' GROUP BY "queue_id", "suspect"'
)
"""Lanes with their slots and workers; queues with their jobs in flight."""


def count_capacity(now: datetime) -> WorkerCapacity:
    """Read it from SQL: what live workers reported, less what is on the belt or running. Nothing is prefetched yet."""
    capacity = WorkerCapacity()
    queues = config.current().queues
    with connection.cursor() as cursor:
        cursor.execute(_SLOTS_AND_IN_FLIGHT, [liveness.oldest_beat(now)])
        rows = cursor.fetchall()
    for lane, _, _, count, workers in rows:
        if lane is not None:
            capacity.slots[lane], capacity.workers[lane] = int(count), workers
    capacity.available.update(capacity.slots)
    for lane, queue_id, suspect, count, _ in rows:
        if lane is not None:
            continue
        count = int(count)
        capacity.in_queue[queue_id] = capacity.in_queue.get(queue_id, 0) + count
        lane = "cpu" if suspect else queues[queue_id].lane if queue_id in queues else "io"
        capacity.available[lane] = capacity.available.get(lane, 0) - count
    return capacity


class PoolMemory:
    """What the dispatcher remembers of each pool: until when it is blocked, and how many candidates to admit in one batch.
    Times are monotonic seconds."""

    def __init__(self) -> None:
        self._blocks: dict[tuple[str, int], tuple[float, Cause]] = {}
        self._batch_limits: dict[str, int] = {}

    def unblock(self) -> None:
        """Drop all blocks."""
        self._blocks.clear()

    def block(self, pool: str, priority: int, until: float, cause: Cause) -> None:
        """Don't try the pool for this priority until then."""
        self._blocks[pool, priority] = (until, cause)

    def blocked_until(self, pool: str, priority: int) -> float:
        """0.0: it is not blocked."""
        return self._blocks[pool, priority][0] if (pool, priority) in self._blocks else 0.0

    def cause(self, pool: str, priority: int) -> Cause:
        """Why it is blocked; only for a pool that was."""
        return self._blocks[pool, priority][1]

    def batch_limit(self, pool: str) -> int:
        """How many candidates of the pool go into the next batch at most."""
        return self._batch_limits.get(pool, MAX_BATCH) if pool else MAX_BATCH

    def learn(self, asked: Iterable[str], denied: set[str]) -> None:
        """A pool that denied gets one candidate in the next batch, and twice as many each time that it admits all."""
        for pool in asked:
            self._batch_limits[pool] = 1 if pool in denied else min(self._batch_limits.get(pool, 1) * 2, MAX_BATCH)
