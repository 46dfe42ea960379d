"""Jobs of accepted bulks whose rows are not written yet, counted."""

from __future__ import annotations

from queues.models import Batch, IntakePart


def waiting_in(queue_id: int) -> int:
    """Jobs of the queue that are accepted and not rows yet."""
    return sum(queues.get(str(queue_id), 0) for queues in IntakePart.objects.values_list("queues", flat=True))


def waiting_of(batch: Batch) -> int:
    """The same of a batch."""
    return sum(batch.parts.values_list("count", flat=True))
