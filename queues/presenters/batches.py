"""Batches as JSON: totals, rate and forecast."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any

from queues.models import Batch
from queues.presenters.jobs import rounded
from queues.selectors.batches import batch_progress
from queues.selectors.wait_history import of_batch
from quotas.shapes import Shape, field


class BatchAnswer(Shape):
    """Needs `project` and `then` selected."""

    id: str = field("uid")
    name: str
    project: str = field("project.slug")
    open: bool
    then: str | None = field(help="The job that runs when the batch is complete.")
    total: int
    totals: dict[str, int]
    rate: float = field(help="Jobs a second.")
    eta: datetime | None
    binding: str | None
    created_at: datetime
    finished_at: datetime | None


class BatchDetail(BatchAnswer):
    waits: dict[str, float] = field(
        help="Seconds in which jobs of the batch waited, by reason code, longest first."
    )  # fmt: skip


class BulkAnswer(Shape):
    batch: BatchAnswer
    ids: list[str]


def batch_shape(batch: Batch) -> dict[str, Any]:
    return BatchAnswer.of(batch, **_computed(batch))


def batch_detail(batch: Batch) -> dict[str, Any]:
    """One batch, with the seconds that its groups waited by reason code."""
    return BatchDetail.of(batch, **_computed(batch), waits=rounded(of_batch(batch)))


def bulk_answer(batch: Batch, ids: list[str]) -> dict[str, Any]:
    return BulkAnswer.of(batch=batch_shape(batch), ids=ids)


def _computed(batch: Batch) -> dict[str, Any]:
    """Members that are not columns of a batch."""
    return {"then": batch.then.uid if batch.then else None, **asdict(batch_progress(batch))}
