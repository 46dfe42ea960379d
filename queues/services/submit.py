"""Submits jobs, in one transaction: locks, finds jobs that answer a submission already, inserts the new ones.

What these functions return is in SQL, committed with the caller's transaction, and is not lost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import IntegrityError, connection, transaction

from queues.errors import BatchClosed, FieldError, IdempotencyKeyReused, InvalidJob
from queues.lifecycle.effects import Effects
from queues.lifecycle.perform import apply
from queues.lifecycle.sql import row_of
from queues.models import Batch, Job
from queues.services import idempotency, intake, queue_room
from queues.services.draft import Draft, Prepared, draft_of, prepare
from queues.specs import JobSpec, read_job
from queues.sql import retry_after_deadlock, slices
from quotas import clock
from quotas.models import Project


@dataclass(frozen=True, slots=True)
class Accepted:
    """The answer to one submission. `created` is False if an idempotency key or `unique_for` found a job."""

    job: Job
    created: bool


def submit_specs(
    project: Project, specs: Sequence[JobSpec], *, pointer: str = "", pointers: Sequence[str] | None = None
) -> list[Accepted]:
    """Accept all of `specs` or none. `pointer` is where the list is in the request, `pointers` where each one is.

    Raises `InvalidJob`, `QueueFull`, `QueueTooSmall`, `QueueDraining`, `IdempotencyKeyReused`, `BatchClosed`.
    """
    return _submit(project, specs, pointer, pointers)


@intake.retry_after_intake
@retry_after_deadlock
def _submit(project: Project, specs: Sequence[JobSpec], pointer: str, pointers: Sequence[str] | None) -> list[Accepted]:
    return accept(prepare(project, specs, pointer=pointer, pointers=pointers))


def submit(type: str, *, project: str, **fields: Any) -> Job:
    """Submit one job from Python; `fields` are those of `POST jobs`, `run_at` may be a `datetime` with its zone.
    Returns the `Job`, new or found.

    Raises `InvalidJob`, `UnknownJobType`, `QueueFull` and the other errors of this package.
    """
    if isinstance(fields.get("run_at"), datetime):
        fields["run_at"] = fields["run_at"].isoformat()
    spec = read_job(
        {"type": type, "project": project, **{name: value for name, value in fields.items() if value is not None}}
    )
    owner = Project.objects.filter(slug=project).first()
    if owner is None:
        raise InvalidJob([FieldError("/project", f"There is no project {project!r}.")])
    return submit_specs(owner, [spec])[0].job


def accept(
    prepared: Prepared, *, batch: Batch | None = None, in_parts: bool = False, drawn: Submission | None = None
) -> list[Accepted]:
    """Accept what was prepared, into `batch` if one is given and locked. `in_parts`: `intake` writes the rows. `drawn`:
    what `draw` returned for it."""
    # Inside a caller's transaction the lock of a queue is not shared: a second submit there may need it alone, and two such
    # transactions would wait for each other.
    alone = connection.in_atomic_block
    try:
        return (drawn or Submission(prepared)).accept(batch, in_parts, alone)
    except (IntegrityError, queue_room.NearMaximum):
        # Another process accepted the same idempotency key between our look and our insert: now it is found. Or a queue
        # is near its maximum, so that its lock is not shared.
        if drawn is not None:
            drawn.parts = None
        return Submission(prepared).accept(batch, in_parts, alone=True)


def draw(prepared: Prepared) -> Submission:
    """Find the jobs that answer and those to be inserted before anything is locked, which takes long for a bulk. The
    lock then only has to show that the same jobs answer."""
    submission = Submission(prepared)
    submission.draw(clock.now())
    submission.make_parts()
    return submission


class Submission:
    """One attempt to accept prepared submissions."""

    def __init__(self, prepared: Prepared) -> None:
        self._prepared = prepared
        self._project = prepared.project
        self._batch: Batch | None = None
        self._in_parts = self._alone = False
        self._unique = {draft.job.unique_key for draft in prepared.drafts if draft and draft.job.unique_key}
        self._linked = any(spec.after for spec in prepared.specs)
        """Whether any submission waits for jobs."""
        self._batches: Mapping[str, Batch] = {}
        self._awaited: Mapping[str, int] = {}
        """Jobs that `after` names: their keys in SQL by their ids."""
        self._begin({}, {})

    def _begin(self, known: Mapping[str, Job], duplicates: Mapping[str, Job]) -> None:
        self._is_drawn = False
        self._known = known
        """Jobs by idempotency key."""
        self._duplicates = duplicates
        """Live jobs by unique key."""
        self._positions: dict[str, int] = {}
        """Idempotency keys of this request: where each one came first."""
        self._new: dict[str, Draft] = {}
        """Drafts of this request, by unique key."""
        self._drafts: list[Draft] = []
        """What is inserted."""
        self._places: list[int] = []
        """Where each of them is in the request."""
        self._answered: list[tuple[str, str, Job]] = []
        """Keys, with the hashes of their requests, that earlier jobs answer."""
        self._answers: list[Accepted] = []
        self.parts: list[intake.Part] | None = None
        """The drafts in parts, if they are accepted so. Their rows are still to be written."""
        self._count: Counter[int] = Counter()
        """Drafts by queue."""

    def make_parts(self) -> None:
        """Make the parts of a bulk before anything is locked. Which jobs `after` names is known under the lock only."""
        if not self._linked:
            self.parts = intake.parts_of(self._project, self._drafts)

    def draw(self, now: datetime, *, locked: bool = False) -> None:
        """Find for each submission the job that answers it, or the draft that is inserted."""
        known, duplicates = self._existing(now, locked)
        if self._is_drawn and ids_of(known) == ids_of(self._known) and ids_of(duplicates) == ids_of(self._duplicates):
            return
        self._begin(known, duplicates)
        for position in range(len(self._prepared.specs)):
            self._draw_one(position, now)
        self._count = Counter(draft.job.queue_id for draft in self._drafts)
        self._is_drawn = True

    def accept(self, batch: Batch | None, in_parts: bool, alone: bool = False) -> list[Accepted]:
        """Raises `InvalidJob`, `BatchClosed`, `IdempotencyKeyReused` and the errors of a queue without room. `alone`: do
        not share the lock of a queue."""
        self._batch, self._in_parts, self._alone = batch, in_parts, alone
        with transaction.atomic():
            if self._unique:
                # One at a time: of two duplicates that come at once, neither would see the other.
                Project.objects.select_for_update(no_key=True).get(pk=self._project.pk)
            # The time matters for unique keys only, which may end; else the statement is saved.
            now = clock.now() if self._unique or in_parts else self._prepared.at
            self._lock()
            self.draw(now, locked=True)
            if self._linked or not in_parts:  # a part has the batch itself
                for draft, position in zip(self._drafts, self._places, strict=True):
                    self._complete(draft, position)
            self._insert(now)
        return self._answers

    def _lock(self) -> None:
        """Jobs, then batches, then queues (in `_insert`): everywhere in this order."""
        specs = self._prepared.specs
        self._awaited = lock_dependencies(specs, self._project)
        if self._batch is None:
            self._batches = lock_batches(self._project, [spec.batch for spec in specs if spec.batch is not None])

    def _existing(self, now: datetime, locked: bool) -> tuple[Mapping[str, Job], Mapping[str, Job]]:
        """The jobs that answer a submission already: by idempotency key, and by unique key. In this order: what becomes
        a row meanwhile is found as a part or as a row."""
        specs = self._prepared.specs
        known = idempotency.existing(self._project, specs, self._prepared.pointers)
        if locked:
            fresh = {spec.idempotency_key for spec in specs if spec.idempotency_key} - known.keys()
            intake.check_free(self._project, fresh | self._unique)
        return known, idempotency.live_duplicates(self._unique, now)

    def _draw_one(self, position: int, now: datetime) -> None:
        """Add the draft to be inserted for the submission, or the job that answers it."""
        spec, key = self._prepared.specs[position], self._prepared.specs[position].idempotency_key
        if key and key in self._known:
            self._answer(self._known[key])
            return
        if key and key in self._positions:
            first = self._positions[key]
            if self._prepared.specs[first].digest != spec.digest:
                where = self._prepared.pointers[position]
                raise IdempotencyKeyReused(f"{where}: the idempotency key is used twice, with different bodies.")
            self._answer(self._answers[first].job)
            return
        if key:
            self._positions[key] = position
        draft = self._fresh_draft(position, now)
        unique = draft.job.unique_key
        if unique is not None and unique in self._duplicates:
            if key:
                self._answered.append((key, spec.digest, self._duplicates[unique]))
            self._answer(self._duplicates[unique])
            return
        if unique is not None and unique in self._new:
            if key:
                self._new[unique].keys.append((key, spec.digest))
            self._answer(self._new[unique].job)
            return
        if unique is not None:
            self._new[unique] = draft
        self._drafts.append(draft)
        self._places.append(position)
        self._answers.append(Accepted(draft.job, created=True))

    def _answer(self, job: Job) -> None:
        self._answers.append(Accepted(job, created=False))

    def _fresh_draft(self, position: int, now: datetime) -> Draft:
        """An attempt before this one may have been rolled back, so that the prepared draft is not changed."""
        prepared = self._prepared.drafts[position]
        if prepared is None:  # its key was known when we looked, and was pruned since
            return draft_of(self._project, self._prepared.specs[position], self._prepared.pointers[position], now)
        if prepared.job.pk is not None:
            prepared.job.pk = None
        return Draft(prepared.job, prepared.text)

    def _complete(self, draft: Draft, position: int) -> None:
        """Set the batch, and the jobs that it waits for."""
        spec, pointer = self._prepared.specs[position], self._prepared.pointers[position]
        batch = self._batch
        if batch is None and spec.batch is not None:
            batch = open_batch(self._batches.get(spec.batch), f"{pointer}/batch")
        if batch is not None:
            draft.job.batch_id = batch.pk
        if spec.after:
            draft.after = self._dependencies(spec, pointer)

    def _dependencies(self, spec: JobSpec, pointer: str) -> list[int]:
        """The jobs that `after` names. Raises `InvalidJob` for unknown ones."""
        errors = [
            FieldError(f"{pointer}/after/{position}", "There is no such job in this project.")
            for position, uid in enumerate(spec.after)
            if uid not in self._awaited
        ]
        if errors:
            raise InvalidJob(errors)
        return [self._awaited[uid] for uid in spec.after]

    def _insert(self, now: datetime) -> None:
        queue_room.check_room(self._count, alone=self._alone)
        idempotency.remember(self._project, self._answered)
        if self._in_parts and self._batch is not None:
            if self.parts is None:
                self.parts = intake.parts_of(self._project, self._drafts)
            intake.write(self.parts, self._batch, now)
            return
        effects = Effects()
        intake.write_rows(effects, self._drafts, [row_of(draft.job) for draft in self._drafts], keys=True)
        keys = [(key, digest, draft.job) for draft in self._drafts for key, digest in draft.keys]
        idempotency.remember(self._project, keys)
        apply(effects, now)


def ids_of(jobs: Mapping[str, Job]) -> dict[str, int]:
    return {key: job.pk for key, job in jobs.items()}


def lock_dependencies(specs: Sequence[JobSpec], project: Project) -> dict[str, int]:
    """The project's jobs that `after` names anywhere in `specs`: their keys in SQL by their ids.

    Locked until the commit: one that ends meanwhile would not see that a job waits for it. All at once and in one
    order, before batches and queues, as transitions lock them.
    """
    found: dict[str, int] = {}
    for uids in slices(sorted({uid for spec in specs for uid in spec.after}), 500):
        found.update(Job.objects.filter(uid__in=uids, project=project).values_list("uid", "pk"))
    for ids in slices(sorted(found.values()), 500):
        list(Job.objects.filter(pk__in=ids).order_by("pk").select_for_update(no_key=True).values_list("pk"))
    return found


def lock_batches(project: Project, uids: Collection[str]) -> dict[str, Batch]:
    """Those of the project's batches, by id, locked until the transaction ends. After jobs and before queues."""
    if not uids:
        return {}
    rows = Batch.objects.filter(project=project, uid__in=set(uids)).order_by("pk")
    return {batch.uid: batch for batch in rows.select_for_update(no_key=True)}


def open_batch(batch: Batch | None, pointer: str) -> Batch:
    """A batch that takes more jobs. Raises `InvalidJob` if there is none, `BatchClosed`."""
    if batch is None:
        raise InvalidJob([FieldError(pointer, "There is no such batch in this project.")])
    if batch.sealed or (batch.finished_at is not None and not batch.open):
        raise BatchClosed()
    return batch
