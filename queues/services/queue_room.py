"""Whether a queue has room for more waiting jobs, exactly, also when many processes submit at once."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import timedelta

from queues.errors import QueueDraining, QueueFull, QueueTooSmall
from queues.models import IntakePart, Job, Queue
from queues.states import WAITING_STAGES, Stage
from quotas import clock


def lock(queue_ids: Collection[int]) -> None:
    """Lock the queues' rows until the transaction ends, in one order everywhere, so that there is no deadlock.

    On SQLite the transaction itself (IMMEDIATE) is the lock. `no_key` lets rows that refer to a queue be written.
    """
    bounded = Queue.objects.filter(pk__in=queue_ids, max_size__isnull=False).order_by("pk")
    list(bounded.select_for_update(no_key=True).values_list("pk", flat=True))


def waiting(queue_id: int) -> int:
    """Jobs of the queue that wait, in any way. In this order: what becomes a row meanwhile is counted twice at most."""
    in_intake: int = sum(queues.get(str(queue_id), 0) for queues in IntakePart.objects.values_list("queues", flat=True))
    return in_intake + Job.objects.filter(queue_id=queue_id, stage__in=WAITING_STAGES).count()


def check_room(jobs: Mapping[int, int]) -> None:
    """Check that the queues have room for so many more jobs, by the key of the queue. Raises `QueueDraining`,
    `QueueTooSmall`, `QueueFull`; call after `lock`."""
    for queue_id, count in jobs.items():
        # The row, not the snapshot: it is locked, so that a drain or another size holds from its commit on.
        row = Queue.objects.only("name", "max_size", "draining_at").get(pk=queue_id)
        if row.draining_at is not None:
            raise QueueDraining(f"The queue {row.name} is draining and accepts nothing new.")
        if row.max_size is None:
            continue
        if count > row.max_size:
            raise QueueTooSmall(f"The queue {row.name} can hold {row.max_size:,} jobs; {count:,} were sent.")
        free = row.max_size - waiting(queue_id)
        if count > free:
            raise QueueFull(row.name, retry_after=_seconds_until_free(queue_id, count - free))


def _seconds_until_free(queue_id: int, needed: int) -> float:
    """An estimate from what the queue finished in the last minute; from 1 to 60 seconds."""
    since = clock.now() - timedelta(seconds=60)
    done = Job.objects.filter(queue_id=queue_id, stage=Stage.DONE, finished_at__gte=since).count()
    return min(max(60.0 * needed / done, 1.0), 60.0) if done else 30.0
