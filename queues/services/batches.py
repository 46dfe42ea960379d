"""Batches: made with their jobs, grown, sealed, complete."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime

from django.db import transaction

from queues import clock
from queues.errors import BatchClosed, FieldError, IdempotencyConflict, InvalidJob
from queues.models import Batch, BatchAnswer, Job
from queues.services import callbacks, dependencies
from queues.services.deadlock import again_after_deadlock
from queues.specs import JobSpec
from queues.states import FINAL, Stage
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


@again_after_deadlock
def submit_bulk(
    project: Project,
    specs: Sequence[JobSpec],
    *,
    name: str = "",
    uid: str | None = None,
    stays_open: bool = False,
    callback_url: str = "",
    then: JobSpec | None = None,
    idempotency_key: str | None = None,
    request_hash: str = "",
    pointer: str = "/jobs",
) -> tuple[Batch, list[str], bool]:
    """Accept a batch whole or not at all. Returns the batch, the jobs' ids in order, and whether it was new.

    `uid` adds to a batch that exists; `stays_open` lets it grow until it is sealed. `then` is a job that is accepted
    with the others and held until all of them have ended, however they did.
    """
    from queues.services.submit import lock_dependencies, submit_specs

    created = True
    with transaction.atomic():
        if idempotency_key is not None and uid is None:
            Project.objects.select_for_update(no_key=True).get(pk=project.pk)
            known = Batch.objects.filter(project=project, idempotency_key=idempotency_key).first()
            if known is not None:
                if known.request_hash != request_hash:
                    raise IdempotencyConflict()
                told = BatchAnswer.objects.filter(batch=known).values_list("ids", flat=True).first()
                if told is None:
                    told = list(known.jobs.order_by("pk").values_list("uid", flat=True))
                return known, told, False
        if uid is not None:
            lock_dependencies(specs, project)
            found = lock(project, [uid]).get(uid)
            if idempotency_key is not None:
                specs = _keyed(specs, uid, idempotency_key, request_hash)
            if found is not None and _is_repeated(project, specs):
                batch, created = found, False  # also where it was sealed since
            else:
                batch = open_one(found, "/batch/id")
                if stays_open and not batch.open:
                    Batch.objects.filter(pk=batch.pk).update(open=True)
                    batch.open = True
        else:
            batch = Batch.objects.create(
                project=project,
                name=name,
                callback_url=callback_url,
                open=stays_open,
                idempotency_key=idempotency_key,
                request_hash=request_hash,
                created_at=clock.now(),
            )
        if then is not None:
            held = replace(then, held=f"waits for batch {batch.uid} to be complete")
            (last,) = submit_specs(project, [held], pointers=["/batch/then"], lookup_batches=False)
            Batch.objects.filter(pk=batch.pk).update(then=last.job)
            batch.then = last.job
        accepted = submit_specs(project, specs, batch=batch, pointer=pointer, lookup_batches=False)
        ids = [answer.job.uid for answer in accepted]
        if batch.idempotency_key is not None and uid is None:
            BatchAnswer.objects.create(batch=batch, ids=ids)
        if uid is None and not any(answer.created for answer in accepted):
            # Each was accepted before, in its own right: nothing of this batch will ever end and complete it.
            now = clock.now()
            callbacks.note_batches(finish_ended([batch.pk], now), now)
            batch.refresh_from_db()
    return batch, ids, created


def _keyed(specs: Sequence[JobSpec], uid: str, idempotency_key: str, request_hash: str) -> list[JobSpec]:
    """`specs` with the request's key on them: a batch that grows is asked to do so with many keys."""
    seed = hashlib.blake2b(f"{uid}\x00{idempotency_key}".encode(), digest_size=16).hexdigest()
    return [
        replace(spec, idempotency_key=f"bulk:{seed}:{number}", digest=request_hash)
        if spec.idempotency_key is None
        else spec
        for number, spec in enumerate(specs)
    ]


def _is_repeated(project: Project, specs: Sequence[JobSpec]) -> bool:
    """Whether jobs of this very request were accepted before."""
    ours = next((spec.idempotency_key for spec in specs if (spec.idempotency_key or "").startswith("bulk:")), None)
    return ours is not None and Job.objects.filter(project=project, idempotency_key=ours).exists()


@again_after_deadlock
def seal(batch: Batch) -> None:
    """No more jobs come; a batch whose jobs have all ended is complete now."""
    with transaction.atomic():
        Batch.objects.filter(pk=batch.pk).update(open=False, sealed=True)
        now = clock.now()
        callbacks.note_batches(finish_ended([batch.pk], now), now)


def finish_ended(batch_ids: Sequence[int], now: datetime) -> list[int]:
    """Mark those of the batches complete that are sealed and whose jobs have all ended; returns their ids."""
    finished = []
    # Held while it is looked at: of two that settle the last two jobs at once, neither sees the other's end.
    rows = Batch.objects.filter(pk__in=batch_ids, open=False, finished_at=None).order_by("pk")
    for pk in rows.select_for_update(no_key=True).values_list("pk", flat=True):
        if not Job.objects.filter(batch_id=pk).exclude(status__in=FINAL).exists() and Batch.objects.filter(
            pk=pk, open=False, finished_at__isnull=True
        ).update(finished_at=now):
            finished.append(pk)
    if finished:
        _go_on(finished)
    return finished


def _go_on(batch_ids: Sequence[int]) -> None:
    """Release the jobs that waited for these batches; once, whatever is replayed in them later."""
    waiting = Job.objects.filter(closes__in=batch_ids, stage=Stage.HELD).order_by("pk")
    for job in waiting.select_for_update(of=("self",)):
        dependencies.release(job)
