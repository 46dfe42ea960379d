"""What submissions are linked to: the jobs that they wait for, and the batches that they join. Locked in this order."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from queues.errors import BatchClosed, FieldError, InvalidJob
from queues.lifecycle.effects import Effects
from queues.lifecycle.sql import slices
from queues.models import Batch, Job, JobDependency
from queues.services.draft import Draft
from queues.specs import JobSpec
from queues.states import FINAL
from quotas.models import Project

SLICE = 500
"""Jobs that one statement names."""


def lock_dependencies(specs: Sequence[JobSpec], project: Project) -> dict[str, int]:
    """The project's jobs that `after` names anywhere in `specs`: their keys in SQL by their ids.

    Locked until the commit: one that ends meanwhile would not see that a job waits for it. All at once and in one
    order, before batches and queues, as transitions lock them.
    """
    found: dict[str, int] = {}
    for uids in slices(sorted({uid for spec in specs for uid in spec.after}), SLICE):
        found.update(Job.objects.filter(uid__in=uids, project=project).values_list("uid", "pk"))
    for ids in slices(sorted(found.values()), SLICE):
        list(Job.objects.filter(pk__in=ids).order_by("pk").select_for_update(no_key=True).values_list("pk"))
    return found


def lock_batches(project: Project, uids: Collection[str]) -> dict[str, Batch]:
    """Those of the project's batches, by id, locked until the transaction ends. After jobs and before queues."""
    rows = Batch.objects.filter(project=project, uid__in=set(uids)).order_by("pk")
    return {batch.uid: batch for batch in rows.select_for_update(no_key=True)}


def open_batch(batch: Batch | None, pointer: str) -> Batch:
    """A batch that takes more jobs. Raises `InvalidJob` if there is none, `BatchClosed`."""
    if batch is None:
        raise InvalidJob([FieldError(pointer, "There is no such batch in this project.")])
    if batch.sealed or (batch.finished_at is not None and not batch.open):
        raise BatchClosed()
    return batch


def dependencies(spec: JobSpec, awaited: Mapping[str, int], pointer: str) -> list[int]:
    """The keys in SQL of the jobs that `after` names. Raises `InvalidJob` for those that are not in `awaited`."""
    errors = [
        FieldError(f"{pointer}/after/{position}", "There is no such job in this project.")
        for position, uid in enumerate(spec.after)
        if uid not in awaited
    ]
    if errors:
        raise InvalidJob(errors)
    return [awaited[uid] for uid in spec.after]


def write_dependencies(effects: Effects, drafts: Sequence[Draft]) -> None:
    """Insert what the drafts, which are rows by now, wait for. A job that has ended already is treated like one that ends
    later."""
    pairs = [(draft.job, after) for draft in drafts for after in draft.after]
    others = sorted({after for _, after in pairs})
    ended: list[int] = []
    for some in slices(others, SLICE):
        # Locked: one that ends meanwhile would not see that a job waits for it.
        awaited = Job.objects.filter(pk__in=some).order_by("pk").select_for_update(no_key=True)
        ended += [pk for pk, status in awaited.values_list("pk", "status") if status in FINAL]
    JobDependency.objects.bulk_create((JobDependency(job=job, after_id=after) for job, after in pairs), batch_size=500)
    effects.ended_before += ended
