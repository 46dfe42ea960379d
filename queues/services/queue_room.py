"""Whether a queue has room for more waiting jobs, exactly, also when many processes submit at once."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta

from django.db import connection

from queues.errors import QueueDraining, QueueFull, QueueTooSmall
from queues.models import IntakePart, Job
from queues.states import WAITING_STAGES, Stage
from quotas import clock

Row = tuple[int, str, int | None, datetime | None]
"""A queue: key, name, maximum, and since when it drains."""


def _read(queue_ids: Collection[int], lock: bool) -> list[Row]:
    ids = ", ".join(str(int(queue_id)) for queue_id in queue_ids)
    with connection.cursor() as cursor:
        cursor.execute(
            f'SELECT "id", "name", "max_size", "draining_at" FROM "queues_queue" WHERE "id" IN ({ids}) ORDER BY "id"'  # noqa: S608
            f"{' FOR NO KEY UPDATE' if lock else ''}"
        )
        rows: list[Row] = cursor.fetchall()
        return rows


def _queues(queue_ids: Collection[int]) -> list[Row]:
    """The rows of the queues. Those that have a maximum are locked until the transaction ends, in one order everywhere,
    so that there is no deadlock.

    On SQLite the transaction itself (IMMEDIATE) is the lock. `NO KEY` lets rows that refer to a queue be written.
    """
    rows = _read(queue_ids, lock=False)
    bounded = [row[0] for row in rows if row[2] is not None]
    if not bounded or not connection.features.has_select_for_update:
        return rows
    locked = {row[0]: row for row in _read(bounded, lock=True)}
    return [locked.get(row[0], row) for row in rows]


def waiting(queue_id: int) -> int:
    """Jobs of the queue that wait, in the intake or as rows. In this order: what becomes a row meanwhile is counted twice at most."""
    in_intake: int = sum(queues.get(str(queue_id), 0) for queues in IntakePart.objects.values_list("queues", flat=True))
    return in_intake + Job.objects.filter(queue_id=queue_id, stage__in=WAITING_STAGES).count()


def check_room(jobs: Mapping[int, int]) -> None:
    """Check that the queues have room for so many more jobs, by the key of the queue. Raises `QueueDraining`,
    `QueueTooSmall`, `QueueFull`. Jobs and batches are locked before."""
    # The rows, not the snapshot: a drain or another size applies from its commit on.
    for queue_id, name, max_size, draining_at in _queues(jobs) if jobs else ():
        count = jobs[queue_id]
        if draining_at is not None:
            raise QueueDraining(f"The queue {name} is draining and accepts nothing new.")
        if max_size is None:
            continue
        if count > max_size:
            raise QueueTooSmall(f"The queue {name} has room for {max_size:,} jobs; {count:,} were sent.")
        free = max_size - waiting(queue_id)
        if count > free:
            raise QueueFull(name, retry_after=_seconds_until_free(queue_id, count - free))


def _seconds_until_free(queue_id: int, needed: int) -> float:
    """An estimate from what the queue finished in the last minute; from 1 to 60 seconds."""
    since = clock.now() - timedelta(seconds=60)
    done = Job.objects.filter(queue_id=queue_id, stage=Stage.DONE, finished_at__gte=since).count()
    return min(max(60.0 * needed / done, 1.0), 60.0) if done else 30.0
