"""Batches: created with their jobs, extended, sealed, completed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from django.db import transaction

from queues.errors import IdempotencyKeyReused
from queues.lifecycle.effects import Effects, apply
from queues.models import Batch, BatchAnswer, Job
from queues.services import idempotency, intake, links
from queues.services.draft import Prepared, prepare
from queues.services.submission import accept, draw, retry_after_intake
from queues.specs import JobSpec
from queues.transactions import retry_after_deadlock
from quotas import clock
from quotas.models import Project


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """The fields of a bulk submission besides its jobs."""

    name: str = ""
    uid: str | None = None
    """The batch that the jobs are added to; None: a new one."""
    stays_open: bool = False
    """The batch takes more jobs until it is sealed."""
    callback_url: str = ""
    then: JobSpec | None = None
    """A job that is accepted with the others and waits until all of them have ended."""
    idempotency_key: str | None = None
    request_hash: str = ""
    pointer: str = "/jobs"
    """Where the jobs are in the request."""


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
    """Accept a batch whole or not at all. Returns the batch, the jobs' ids in order, and whether it was new. For the
    arguments see `BatchRequest`."""
    request = BatchRequest(name, uid, stays_open, callback_url, then, idempotency_key, request_hash, pointer)
    in_parts = intake.is_worth_it(len(specs))
    answer = _accept(project, specs, request, in_parts)
    if in_parts:
        intake.finish_own(answer.parts)
        intake.finish({"batch": answer.batch})  # those of an earlier request that is answered again
        answer.batch.refresh_from_db()
    return answer.batch, answer.ids, answer.created


@dataclass(frozen=True, slots=True)
class _Answer:
    batch: Batch
    ids: list[str]
    created: bool
    parts: Sequence[intake.Part] = ()
    """Jobs that are accepted and whose rows are still to be written."""


@retry_after_intake
@retry_after_deadlock
def _accept(project: Project, specs: Sequence[JobSpec], request: BatchRequest, in_parts: bool) -> _Answer:
    new, key = request.uid is None, request.idempotency_key
    if new and key is not None and (answer := _answer_of(project, key, request.request_hash)) is not None:
        return answer
    if request.uid is not None and key is not None:
        specs = _keyed(specs, request.uid, key, request.request_hash)
    prepared = prepare(project, specs, pointer=request.pointer)
    drawn = None
    if in_parts:
        intake.serialise(prepared.drafts)
        drawn = draw(prepared)
    then = _prepared_then(project, request.then)
    with transaction.atomic():
        if new and key is not None:
            Project.objects.select_for_update(no_key=True).get(pk=project.pk)
            answer = _answer_of(project, key, request.request_hash)
            if answer is not None:
                return answer
        batch, created = _create(project, request) if new else _locked_batch(project, specs, request)
        accepted = accept(prepared, batch=batch, in_parts=in_parts, drawn=drawn)
        if then is not None:
            _set_then(batch, accept(then)[0].job)
        ids = [answer.job.uid for answer in accepted]
        if new and key is not None:
            BatchAnswer.objects.create(batch=batch, ids=ids)
        if new and not any(answer.created for answer in accepted):
            # Each was accepted before by its own key: no job of this batch will ever end and complete it.
            complete_if_ended(batch.pk)
            batch.refresh_from_db()
    return _Answer(batch, ids, created, drawn.parts or () if drawn is not None else ())


def _prepared_then(project: Project, then: JobSpec | None) -> Prepared | None:
    if then is None:
        return None
    return prepare(project, [replace(then, held="waits for its batch to be complete")], pointers=["/batch/then"])


def _create(project: Project, request: BatchRequest) -> tuple[Batch, bool]:
    batch = Batch.objects.create(
        project=project,
        name=request.name,
        callback_url=request.callback_url,
        open=request.stays_open,
        idempotency_key=request.idempotency_key,
        request_hash=request.request_hash,
        created_at=clock.now(),
    )
    return batch, True


def _locked_batch(project: Project, specs: Sequence[JobSpec], request: BatchRequest) -> tuple[Batch, bool]:
    """The batch that jobs are added to, locked; False if the same request was accepted before."""
    links.lock_dependencies(specs, project)
    found = links.lock_batches(project, [request.uid or ""]).get(request.uid or "")
    if found is not None and _is_repeated(project, specs):
        return found, False  # also if it was sealed since
    batch = links.open_batch(found, "/batch/id")
    if request.stays_open and not batch.open:
        Batch.objects.filter(pk=batch.pk).update(open=True)
        batch.open = True
    return batch, True


def _set_then(batch: Batch, job: Job) -> None:
    batch.then = job
    Job.objects.filter(pk=job.pk).update(reason=f"waits for batch {batch.uid} to be complete")
    Batch.objects.filter(pk=batch.pk).update(then=job)


def _answer_of(project: Project, key: str, request_hash: str) -> _Answer | None:
    """What the first request with this key was answered; None if this is the first."""
    known = Batch.objects.filter(project=project, idempotency_key=key).first()
    if known is None:
        return None
    if known.request_hash != request_hash:
        raise IdempotencyKeyReused()
    ids = BatchAnswer.objects.filter(batch=known).values_list("ids", flat=True).first()
    if ids is None:
        ids = list(known.jobs.order_by("pk").values_list("uid", flat=True))
    return _Answer(known, ids, False)


def _keyed(specs: Sequence[JobSpec], uid: str, idempotency_key: str, request_hash: str) -> list[JobSpec]:
    """`specs` with the request's key on them: a batch that grows gets requests with many keys."""
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


@retry_after_deadlock
def seal(batch: Batch) -> None:
    """No more jobs come; a batch whose jobs have all ended is complete now."""
    with transaction.atomic():
        Batch.objects.filter(pk=batch.pk).update(open=False, sealed=True)
        complete_if_ended(batch.pk)


def complete_if_ended(batch_id: int) -> None:
    """Mark the batch complete if it is sealed and its jobs have all ended, with all that follows."""
    apply(Effects(batches={batch_id}), clock.now())
