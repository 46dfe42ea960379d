"""Accepts submissions step by step, in one transaction: locks, finds jobs that answer already, inserts the new ones.

For all that is not plain (`queues.services.submit`): links to jobs and batches, keys in use, bulks, queues near their
maximum, mistakes.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import ParamSpec, TypeVar

from django.db import IntegrityError, connection, transaction

from queues.errors import IdempotencyKeyReused
from queues.lifecycle import acceptance
from queues.lifecycle.effects import Effects, apply
from queues.models import Batch, Job
from queues.services import idempotency, intake, links, queue_room
from queues.services.draft import Draft, Prepared, draft_of, prepare
from queues.specs import JobSpec
from queues.transactions import retry_after_deadlock
from quotas import clock
from quotas.models import Project

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Accepted:
    """The answer to one submission. `created` is False if an idempotency key or `unique_for` found a job."""

    job: Job
    created: bool


def retry_after_intake(act: Callable[P, R]) -> Callable[P, R]:
    """Repeat a call that met a key of a bulk whose rows are still being written, once they are. The first argument of
    `act` is the project."""

    @functools.wraps(act)
    def acting(*args: P.args, **kwargs: P.kwargs) -> R:
        while True:
            try:
                return act(*args, **kwargs)
            except intake.StillInIntake:
                intake.finish({"project": args[0]})

    return acting


@retry_after_intake
@retry_after_deadlock
def accept_specs(
    project: Project, specs: Sequence[JobSpec], pointer: str, pointers: Sequence[str] | None
) -> list[Accepted]:
    """Accept all of `specs` or none; the arguments and the errors are those of `submit.submit_specs`."""
    return accept(prepare(project, specs, pointer=pointer, pointers=pointers))


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
        if self._linked:
            self._awaited = links.lock_dependencies(specs, self._project)
        batches = [spec.batch for spec in specs if spec.batch is not None]
        if batches and self._batch is None:
            self._batches = links.lock_batches(self._project, batches)

    def _existing(self, now: datetime, locked: bool) -> tuple[Mapping[str, Job], Mapping[str, Job]]:
        """The jobs that answer a submission already: by idempotency key, and by unique key. In this order: what becomes
        a row meanwhile is found as a part or as a row."""
        specs = self._prepared.specs
        keys = {spec.idempotency_key for spec in specs if spec.idempotency_key}
        if not keys and not self._unique:
            return {}, {}
        known = idempotency.existing(self._project, specs, self._prepared.pointers)
        if locked:
            intake.check_free(self._project, (keys - known.keys()) | self._unique)
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
        if prepared.job.id is not None:
            prepared.job.id = None
        return Draft(prepared.job, prepared.text)

    def _complete(self, draft: Draft, position: int) -> None:
        """Set the batch, and the jobs that it waits for."""
        spec, pointer = self._prepared.specs[position], self._prepared.pointers[position]
        batch = self._batch
        if batch is None and spec.batch is not None:
            batch = links.open_batch(self._batches.get(spec.batch), f"{pointer}/batch")
        if batch is not None:
            draft.job.batch_id = batch.pk
        if spec.after:
            draft.after = links.dependencies(spec, self._awaited, pointer)

    def _insert(self, now: datetime) -> None:
        queue_room.check_room(self._count, alone=self._alone)
        if self._answered:
            idempotency.remember(self._project, self._answered)
        if self._in_parts and self._batch is not None:
            if self.parts is None:
                self.parts = intake.parts_of(self._project, self._drafts)
            intake.write(self.parts, self._batch, now)
            return
        effects = Effects()
        jobs = [draft.job for draft in self._drafts]
        acceptance.accept(effects, jobs, [acceptance.row_of(job) for job in jobs])
        if self._linked:
            links.write_dependencies(effects, self._drafts)
        keys = [(key, digest, draft.job) for draft in self._drafts for key, digest in draft.keys]
        if keys:
            idempotency.remember(self._project, keys)
        apply(effects, now)


def ids_of(jobs: Mapping[str, Job]) -> dict[str, int]:
    return {key: job.pk for key, job in jobs.items()}
