"""Batches that a submission adds jobs to."""

from __future__ import annotations

from collections.abc import Collection

from queues.errors import BatchClosed, FieldError, InvalidJob
from queues.models import Batch
from quotas.models import Project


def lock(project: Project, uids: Collection[str]) -> dict[str, Batch]:
    """Those of the project's batches, by id, held until the transaction ends. After jobs and before queues."""
    if not uids:
        return {}
    rows = Batch.objects.filter(project=project, uid__in=set(uids)).order_by("pk")
    return {batch.uid: batch for batch in rows.select_for_update(no_key=True)}


def open_one(batch: Batch | None, pointer: str) -> Batch:
    """A batch that takes more jobs; raises `InvalidJob` where there is none, `BatchClosed`."""
    if batch is None:
        raise InvalidJob([FieldError(pointer, "There is no such batch in this project.")])
    if batch.sealed or (batch.finished_at is not None and not batch.open):
        raise BatchClosed()
    return batch
