"""Whether a queue has room for more waiting jobs, exactly, also when many processes submit at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta

from queues.config import QueueSpec
from queues.errors import QueueDraining, QueueFull, QueueTooSmall
from queues.models import IntakePart, Job, Queue
from queues.states import WAITING_STAGES, Stage
from quotas import clock


def lock(queue_ids: Sequence[int]) -> None:
    """Lock the queues' rows until the transaction ends, in one order everywhere, so that there is no deadlock.

    On SQLite the transaction itself (IMMEDIATE) is the lock. `no_key` lets rows that refer to a queue be written.
    """
    bounded = Queue.objects.filter(pk__in=set(queue_ids), max_size__isnull=False).order_by("pk")
    list(bounded.select_for_update(no_key=True).values_list("pk", flat=True))


def waiting(queue_id: int) -> int:
    """Jobs of the queue that wait, in any way. In this order: what becomes a row meanwhile is counted twice at most."""
    in_intake: int = sum(queues.get(str(queue_id), 0) for queues in IntakePart.objects.values_list("queues", flat=True))
    return in_intake + Job.objects.filter(queue_id=queue_id, stage__in=WAITING_STAGES).count()


def check_room(rows: Sequence[tuple[QueueSpec, Job]]) -> None:
    """Check that the queues have room for all of `rows`. Raises `QueueDraining`, `QueueTooSmall`, `QueueFull`; call after `lock`."""
    asked = Counter(queue.id for queue, _ in rows)
    for queue in {queue.id: queue for queue, _ in rows}.values():
        # The row, not the snapshot: it is locked, so that a drain or another size holds from its commit on.
        row = Queue.objects.only("max_size", "draining_at").get(pk=queue.id)
        if row.draining_at is not None:
            raise QueueDraining(f"The queue {queue.name} is draining and accepts nothing new.")
        if row.max_size is None:
            continue
        if asked[queue.id] > row.max_size:
            raise QueueTooSmall(
                f"The queue {queue.name} can hold {row.max_size:,} jobs; {asked[queue.id]:,} were sent."
            )
        free = row.max_size - waiting(queue.id)
        if asked[queue.id] > free:
            raise QueueFull(queue.name, retry_after=_seconds_until_free(queue.id, asked[queue.id] - free))


def _seconds_until_free(queue_id: int, needed: int) -> float:
    """An estimate from what the queue finished in the last minute; from 1 to 60 seconds."""
    since = clock.now() - timedelta(seconds=60)
    done = Job.objects.filter(queue_id=queue_id, stage=Stage.DONE, finished_at__gte=since).count()
    return min(max(60.0 * needed / done, 1.0), 60.0) if done else 30.0
