"""Whether a queue has room for more waiting jobs, exactly, also when many processes submit at once.

On PostgreSQL a submit locks the queue until its commit. Far below the maximum submits of a few jobs share this lock, so that they
do not wait for each other's commits: together they can't reach the maximum, since each is small and the server limits
how many there are. A submit near the maximum, and a bulk, has the lock alone. On SQLite the transaction is the lock.

The waiting jobs are counted near the maximum only. Far below it a process remembers its last count and how many rows had been
written until then: more jobs than those that were written since can't have come.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import connection

from queues import config
from queues.errors import QueueDraining, QueueFull, QueueTooSmall
from queues.lifecycle.acceptance import Room
from queues.models import Job
from queues.states import IN_FLIGHT_STAGES, WAITING_STAGES, Stage
from quotas import clock

Row = tuple[int, str, int | None, datetime | None]
"""A queue: key, name, maximum, and since when it drains."""


LOCK = 0x510CE
"""The first number of the advisory locks of queues; the second is the queue's key."""
SMALL = 10
"""Jobs of a submit that shares the lock, at most."""
NEAR_SECONDS = 1.0
"""For so long after a queue was seen near its maximum, this process takes its lock alone at once."""
_near: dict[int, float] = {}
"""By queue: until when it counts as near its maximum, on the monotonic clock."""
_sessions: int | None = None


@dataclass(frozen=True, slots=True)
class Counted:
    """The last count of a queue's jobs in this process."""

    live: int
    """Jobs that waited or were in flight: these may come back."""
    rows: int
    """The second number of `_state` then."""


_counted: dict[int, Counted] = {}
"""By queue."""


class NearMaximum(Exception):
    """A submit that shares the lock found the queue near its maximum: repeat the transaction with the lock alone."""


def lock(queue_id: int, *, shared: bool = False) -> None:
    """Lock the queue's room until the transaction ends. After jobs and batches; of several queues in the order of their keys."""
    if connection.vendor != "postgresql":
        return
    with connection.cursor() as cursor:
        cursor.execute(_lock_text(queue_id, shared=shared))


def _lock_text(queue_id: int, *, shared: bool) -> str:
    return f"SELECT pg_advisory_xact_lock{'_shared' if shared else ''}({LOCK}, {int(queue_id)})"


def _read(queue_ids: Collection[int]) -> list[Row]:
    ids = ", ".join(str(int(queue_id)) for queue_id in queue_ids)
    with connection.cursor() as cursor:
        cursor.execute(
            f'SELECT "id", "name", "max_size", "draining_at" FROM "queues_queue" WHERE "id" IN ({ids}) ORDER BY "id"'  # noqa: S608
        )
        rows: list[Row] = cursor.fetchall()
        return rows


def _reserve() -> int:
    """More jobs than all submits that share a lock can add together: each session of the server has one transaction."""
    global _sessions
    if connection.vendor != "postgresql":
        return 0
    if _sessions is None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT current_setting('max_connections')::int")
            (_sessions,) = cursor.fetchone()
    return SMALL * (_sessions or 0)


_STATE = {
    "postgresql": (
        "SELECT (SELECT coalesce(sum((queues ->> %s)::bigint), 0) FROM queues_intakepart) AS in_intake,"
        " coalesce(sum(pg_sequence_last_value(pg_get_serial_sequence(name, 'id')::regclass)), 0) AS written"
        " FROM unnest(ARRAY['queues_job', 'queues_transition']) AS name"
    ),
    "sqlite": (
        "SELECT (SELECT coalesce(sum(json_extract(queues, '$.\"' || %s || '\"')), 0) FROM queues_intakepart) AS in_intake,"
        " coalesce((SELECT sum(seq) FROM sqlite_sequence WHERE name IN ('queues_job', 'queues_transition')), 0) AS written"
    ),
}


def _state(queue_id: int) -> tuple[int, int]:
    """The queue's jobs that are accepted and not rows yet; and a number that is at least one higher for each job that was
    inserted or replayed since, in whichever queue, whether committed or not: the last keys of jobs and of the timeline,
    which each replay writes to."""
    with connection.cursor() as cursor:
        cursor.execute(_STATE[connection.vendor], [str(queue_id)])
        in_intake, rows = cursor.fetchone()
        return int(in_intake), int(rows)


def _is_far_below(queue_id: int, max_size: int, count: int) -> bool:
    """Whether the queue has room for so many jobs beside all that other sessions may be adding, as far as is known without
    a count."""
    known = _counted.get(queue_id)
    if known is None:
        return False
    in_intake, rows = _state(queue_id)
    come = rows - known.rows
    # Twice: the jobs of submits that were not committed at the count, and of those that are not now.
    return come >= 0 and max_size - known.live - come - in_intake - count >= 2 * _reserve()


def room_of_one(queue_id: int) -> Room | None:
    """What a statement has to find true of a queue to insert one more job; None where its jobs have to be counted before."""
    queue = config.current().queues.get(queue_id)
    if queue is None:
        return None
    if queue.max_size is None:
        return _UNBOUNDED
    known = _counted.get(queue_id)
    if known is None or _near.get(queue_id, 0.0) >= time.monotonic():
        return None
    # As `_is_far_below` has it.
    return Room(
        '(q."max_size" IS NULL OR (state.written >= %s AND q."max_size" - state.written - state.in_intake >= %s))',
        (known.rows, known.live - known.rows + 1 + 2 * _reserve()),
        source=_STATE[connection.vendor],
        source_parameters=(str(queue_id),),
        lock=_lock_text(queue_id, shared=True) if connection.vendor == "postgresql" else "",
    )


_UNBOUNDED = Room('q."max_size" IS NULL')


def _count(queue_id: int, at_most: int) -> int:
    """Jobs of the queue that wait, in the intake or as rows; not more than `at_most` are counted. In this order: what becomes a
    row meanwhile is counted twice at most."""
    in_intake, rows = _state(queue_id)
    jobs = Job.objects.filter(queue_id=queue_id).order_by()
    waiting = jobs.filter(stage__in=WAITING_STAGES)[:at_most].count()
    in_flight = jobs.filter(stage__in=IN_FLIGHT_STAGES)[:at_most].count()
    _counted[queue_id] = Counted(in_intake + waiting + in_flight, rows)
    return in_intake + waiting


def check_room(jobs: Mapping[int, int], *, alone: bool = False) -> None:
    """Check that the queues have room for so many more jobs, by the key of the queue. Raises `QueueDraining`,
    `QueueTooSmall`, `QueueFull`, and `NearMaximum` unless `alone`. Jobs and batches are locked before."""
    if not jobs:
        return
    # The rows, not the snapshot: a drain or another size applies from its commit on.
    rows = {} if _has_maximum(jobs) else {row[0]: row for row in _read(jobs)}
    for queue_id, count in sorted(jobs.items()):
        row = rows.get(queue_id)
        if row is not None and row[2] is None:
            _check_open(row)
        else:
            _check(queue_id, count, alone)


def _has_maximum(jobs: Mapping[int, int]) -> bool:
    """Whether each of the queues has one as far as this process knows, so that its row is read under its lock only."""
    known = config.current().queues
    return all(queue_id in known and known[queue_id].max_size is not None for queue_id in jobs)


def _check_open(row: Row) -> None:
    _, name, _, draining_at = row
    if draining_at is not None:
        raise QueueDraining(f"The queue {name} is draining and accepts nothing new.")


def _check(queue_id: int, count: int, alone: bool) -> None:
    """Check one queue that has a maximum."""
    shared = not alone and count <= SMALL and _near.get(queue_id, 0.0) < time.monotonic()
    lock(queue_id, shared=shared)
    row = next(iter(_read([queue_id])), None)
    if row is None:
        return  # it was removed, and its key refuses the jobs
    _check_open(row)
    _, name, max_size, _ = row
    if max_size is None:
        return
    if count > max_size:
        raise QueueTooSmall(f"The queue {name} has room for {max_size:,} jobs; {count:,} were sent.")
    if _is_far_below(queue_id, max_size, count):
        return
    free = max_size - _count(queue_id, at_most=max_size + 1)
    if shared and free - count < _reserve():
        _near[queue_id] = time.monotonic() + NEAR_SECONDS
        raise NearMaximum()
    if count > free:
        raise QueueFull(name, retry_after=_seconds_until_free(queue_id, count - free))


def _seconds_until_free(queue_id: int, needed: int) -> float:
    """An estimate from what the queue finished in the last minute; from 1 to 60 seconds. More than makes it 1 is not counted."""
    since = clock.now() - timedelta(seconds=60)
    finished = Job.objects.filter(queue_id=queue_id, stage=Stage.DONE, finished_at__gte=since).order_by()
    done = finished[: 60 * needed].count()
    return min(max(60.0 * needed / done, 1.0), 60.0) if done else 30.0
