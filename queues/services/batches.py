"""Batches: made with their jobs, grown, sealed, complete."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from django.db import transaction

from queues.errors import IdempotencyKeyReused
from queues.lifecycle.effects import Effects
from queues.lifecycle.perform import apply
from queues.models import Batch, BatchAnswer, Job
from queues.services import idempotency, intake, open_batches
from queues.services.deadlock import again_after_deadlock
from queues.services.submit import accept, lock_dependencies, prepare
from queues.specs import JobSpec
from quotas import clock
from quotas.models import Project


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
    by_parts = intake.is_worth_it(len(specs))
    batch, ids, created = _accept(
        project, specs, name, uid, stays_open, callback_url, then, idempotency_key, request_hash, pointer, by_parts
    )
    if by_parts:
        intake.finish({"batch": batch})
        batch.refresh_from_db()
    return batch, ids, created


@intake.after_what_is_taken_in
@again_after_deadlock
def _accept(
    project: Project,
    specs: Sequence[JobSpec],
    name: str,
    uid: str | None,
    stays_open: bool,
    callback_url: str,
    then: JobSpec | None,
    idempotency_key: str | None,
    request_hash: str,
    pointer: str,
    by_parts: bool,
) -> tuple[Batch, list[str], bool]:
    """The transaction that accepts the batch."""
    created = True
    if uid is not None and idempotency_key is not None:
        specs = _keyed(specs, uid, idempotency_key, request_hash)
    elif idempotency_key is not None:
        answer = _answer_of(project, idempotency_key, request_hash)
        if answer is not None:
            return answer
    prepared = prepare(project, specs, pointer=pointer, by_parts=by_parts)
    last = None
    if then is not None:
        last = prepare(project, [replace(then, held="waits for its batch to be complete")], pointers=["/batch/then"])
    with transaction.atomic():
        if idempotency_key is not None and uid is None:
            Project.objects.select_for_update(no_key=True).get(pk=project.pk)
            answer = _answer_of(project, idempotency_key, request_hash)
            if answer is not None:
                return answer
        if uid is not None:
            lock_dependencies(specs, project)
            found = open_batches.lock(project, [uid]).get(uid)
            if found is not None and _is_repeated(project, specs):
                batch, created = found, False  # also where it was sealed since
            else:
                batch = open_batches.open_one(found, "/batch/id")
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
        accepted = accept(prepared, batch=batch, by_parts=by_parts)
        if last is not None:
            batch.then = accept(last)[0].job
            Job.objects.filter(pk=batch.then.pk).update(reason=f"waits for batch {batch.uid} to be complete")
            Batch.objects.filter(pk=batch.pk).update(then=batch.then)
        ids = [answer.job.uid for answer in accepted]
        if batch.idempotency_key is not None and uid is None:
            BatchAnswer.objects.create(batch=batch, ids=ids)
        if uid is None and not any(answer.created for answer in accepted):
            # Each was accepted before, in its own right: nothing of this batch will ever end and complete it.
            complete_if_ended(batch.pk)
            batch.refresh_from_db()
    return batch, ids, created


def _answer_of(project: Project, key: str, request_hash: str) -> tuple[Batch, list[str], bool] | None:
    """What the first request with this key was answered; None where this is the first."""
    known = Batch.objects.filter(project=project, idempotency_key=key).first()
    if known is None:
        return None
    if known.request_hash != request_hash:
        raise IdempotencyKeyReused()
    ids = BatchAnswer.objects.filter(batch=known).values_list("ids", flat=True).first()
    if ids is None:
        ids = list(known.jobs.order_by("pk").values_list("uid", flat=True))
    return known, ids, False


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
    """Whether jobs of this very request were accepted before. A request that bears a key of its own has put one on its
    jobs; without that, each of the jobs must be known by its own."""
    ours = [spec.idempotency_key for spec in specs if (spec.idempotency_key or "").startswith("bulk:")][:1]
    keys = ours or [spec.idempotency_key for spec in specs]
    return all(keys) and len(idempotency.known(project, [key for key in keys if key])) == len(set(keys))


@again_after_deadlock
def seal(batch: Batch) -> None:
    """No more jobs come; a batch whose jobs have all ended is complete now."""
    with transaction.atomic():
        Batch.objects.filter(pk=batch.pk).update(open=False, sealed=True)
        complete_if_ended(batch.pk)


def complete_if_ended(batch_id: int) -> None:
    """Mark the batch complete if it is sealed and its jobs have all ended, with all that follows."""
    apply(Effects(batches={batch_id}), clock.now())
