"""Accepting jobs. What this returns is in SQL, committed with the caller's transaction, and is not lost."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import IntegrityError, transaction

from queues import config, registry
from queues.errors import FieldError, IdempotencyKeyReused, InvalidJob, NoSuchPool, UnknownJobType
from queues.job_types.http_request import HttpRequest
from queues.lifecycle.effects import Effects
from queues.lifecycle.perform import apply
from queues.lifecycle.waiting import new_job
from queues.models import Batch, Job
from queues.services import idempotency, intake, open_batches, queue_room
from queues.services.deadlock import again_after_deadlock
from queues.services.pool_access import KnownPools
from queues.slices import one_of, slices
from queues.specs import JobSpec, digest_of, read_cost, read_job
from queues.states import LIVE_STAGES
from quotas import clock
from quotas.models import Project


@dataclass(frozen=True, slots=True)
class Accepted:
    """One answer to a submission. `created` is False where an idempotency key or `unique_for` found a job."""

    job: Job
    created: bool


def ordering_key_of(user: str, keys: Mapping[str, str], model: str = "") -> str:
    """Jobs with equal ordering keys start in order: those of one user and one set of keys; without either, those of one
    model."""
    if not user and not keys:
        return hashlib.blake2b(f"\x02{model}".encode(), digest_size=12).hexdigest() if model else ""
    text = "\x00".join([user, *(f"{name}\x01{value}" for name, value in sorted(keys.items()))])
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def level_of(priority: int, levels: int) -> int:
    """The priority that stands for all of its level in a queue of so many: ten keep all apart, with three they are
    `high` (1), `normal` (5) and `low` (8), with one (5) there is one line."""
    return (priority * levels // 10 * 10 + 5) // levels


def _resolve(
    spec: JobSpec, pointer: str, project: str, known_pools: KnownPools
) -> tuple[config.QueueSpec, registry.JobType]:
    """Look up names; raises `InvalidJob` with all that is unknown."""
    errors: list[FieldError] = []
    queues = config.current().queue_named
    job_type = registry.get(spec.type)
    if job_type is None:
        known = ", ".join(registry.names())
        raise UnknownJobType([FieldError(f"{pointer}/type", f"No job type {spec.type!r}. Known: {known}.")])
    name = spec.queue if spec.queue is not None else job_type.queue or "batch"
    queue = queues.get(name)
    if queue is None:
        config.snapshot.expire()
        queue = config.current().queue_named.get(name)
    if queue is None:
        errors.append(FieldError(f"{pointer}/queue", f"There is no queue {name!r}."))
    errors += job_type.validate(spec.payload, f"{pointer}/payload")
    if errors or queue is None:
        raise InvalidJob(errors)
    pool = job_type.pool(spec.payload) or queue.pool
    if job_type.needs_pool and pool is None:
        raise InvalidJob([FieldError(f"{pointer}/payload/pool", "This field is required: the queue has no pool.")])
    if job_type.pool(spec.payload):
        known_pools.check(str(pool), project, f"{pointer}/payload/pool", f"There is no pool {pool!r}.")
    elif pool is not None:
        known_pools.check(pool, project, f"{pointer}/queue", f"There is no queue {name!r} for this project.")
    return queue, job_type


def _row(
    spec: JobSpec,
    project: Project,
    queue: config.QueueSpec,
    job_type: registry.JobType,
    now: datetime,
    pointer: str,
) -> Job:
    cost = dict(spec.cost) if spec.cost is not None else _estimate(spec, job_type, pointer)
    cost.setdefault("requests", 1)
    pool = job_type.pool(spec.payload) or queue.pool
    cost, model = through_pool(job_type, pool, spec.payload, cost)
    held = spec.held or ("waits for other jobs" if spec.after else "")
    not_before = spec.run_at or (now + timedelta(seconds=spec.delay) if spec.delay else None)
    if not_before is not None and not_before <= now:
        not_before = None
    job = new_job(
        held=held,
        not_before=not_before,
        project=project,
        queue_id=queue.id,
        type=spec.type,
        payload=dict(spec.payload),
        pool=job_type.pool(spec.payload) or "",
        model=model,
        priority=level_of(spec.priority, queue.priority_levels),
        user=spec.user,
        keys=dict(spec.keys),
        cost=cost,
        max_attempts=spec.max_attempts or queue.retry.max_attempts,
        timeout=spec.timeout,
        delivery_mode=getattr(job_type, "delivery", spec.delivery)
        if spec.delivery == "at_least_once"
        else spec.delivery,
        callback_url=spec.callback_url,
        idempotency_key=spec.idempotency_key,
        request_hash=spec.digest if spec.idempotency_key else "",
        ordering_key=ordering_key_of(spec.user, spec.keys, model),
        created_at=now,
    )
    if spec.unique_for is not None:
        seed = (
            spec.unique_key
            if spec.unique_key is not None
            else f"{spec.type}\x00{queue.name}\x00{_payload_digest(spec)}"
        )
        job.unique_key = hashlib.blake2b(f"{project.pk}\x00{seed}".encode(), digest_size=16).hexdigest()
        job.unique_until = now + timedelta(seconds=spec.unique_for)
    return job


def through_pool(
    job_type: registry.JobType, pool: str | None, payload: Mapping[str, Any], cost: dict[str, int]
) -> tuple[dict[str, int], str]:
    """The cost with what a call through this pool is estimated to use besides, and the model that it asks for."""
    if isinstance(job_type, HttpRequest):
        return job_type.cost_through(pool, payload, cost), job_type.model_through(pool, payload)
    return cost, job_type.model(payload)


def _estimate(spec: JobSpec, job_type: registry.JobType, pointer: str) -> dict[str, int]:
    """The type's own estimate of the cost, held to the same rules as a caller's: it may be user's code."""
    errors: list[FieldError] = []
    try:
        cost = read_cost(dict(job_type.cost(spec.payload)), f"{pointer}/cost", errors)
    except Exception as error:
        errors.append(
            FieldError(f"{pointer}/cost", f"The type's estimate failed: {type(error).__name__}: {error}"[:300])
        )
    if errors or cost is None:
        raise InvalidJob(errors)
    return cost


def _payload_digest(spec: JobSpec) -> str:
    return digest_of(dict(spec.payload))


def lock_dependencies(specs: Sequence[JobSpec], project: Project) -> dict[str, int]:
    """The project's jobs that `after` names anywhere in `specs`: their keys in SQL by their ids.

    Locked until the commit: one that ends meanwhile would not see that somebody waits for it. All at once and in one
    order, and before batches and queues, as those do that end jobs.
    """
    found: dict[str, int] = {}
    for uids in slices(sorted({uid for spec in specs for uid in spec.after}), 500):
        found.update(Job.objects.filter(uid__in=uids, project=project).values_list("uid", "pk"))
    for ids in slices(sorted(found.values()), 500):
        list(Job.objects.filter(pk__in=ids).order_by("pk").select_for_update(no_key=True).values_list("pk"))
    return found


def _dependencies(spec: JobSpec, found: Mapping[str, int], pointer: str) -> list[int]:
    """The jobs that `after` names, of those that were found."""
    errors = [
        FieldError(f"{pointer}/after/{position}", "There is no such job in this project.")
        for position, uid in enumerate(spec.after)
        if uid not in found
    ]
    if errors:
        raise InvalidJob(errors)
    return [found[uid] for uid in spec.after]


def _twins(unique_keys: Iterable[str], now: datetime) -> dict[str, Job]:
    """The waiting and running jobs that `unique_for` would double, by unique key; of several the oldest."""
    found: dict[str, Job] = {}
    keys = sorted(set(unique_keys))
    if keys:
        live = Job.objects.filter(unique_key__in=one_of(keys), unique_key__isnull=False, stage__in=LIVE_STAGES)
        for job in live.filter(unique_until__gt=now).order_by("id"):
            found.setdefault(job.unique_key or "", job)
    return found


def check(spec: JobSpec, project: str) -> None:
    """Whether its type, queue, pool and payload would be accepted of the project now. Raises `InvalidJob`."""
    _resolve(spec, "", project, KnownPools())


@dataclass(frozen=True, slots=True)
class Prepared:
    """Submissions as far as they can be brought without a lock: names looked up, rows made. A draft is None where the
    job is known by its idempotency key."""

    project: Project
    specs: Sequence[JobSpec]
    pointers: Sequence[str]
    resolved: Sequence[tuple[config.QueueSpec, registry.JobType] | None]
    """None, too, where the job is known: what was accepted is answered, whatever would be accepted now."""
    drafts: Sequence[intake.Draft | None]


def prepare(
    project: Project,
    specs: Sequence[JobSpec],
    *,
    pointer: str = "",
    pointers: Sequence[str] | None = None,
    by_parts: bool = False,
) -> Prepared:
    """Everything that needs no lock, estimates of costs too, which may be user's code. `pointer` is where the list
    stands in the request, `pointers` where each one does; `by_parts`: the rows will be left to `intake`.

    Raises `InvalidJob`, `IdempotencyKeyReused`.
    """
    pointers = pointers or [f"{pointer}/{position}" if pointer else "" for position in range(len(specs))]
    pools = KnownPools()
    errors: list[FieldError] = []
    missing: list[bool] = []
    pools_only = True
    known = idempotency.existing(project, specs, pointers)
    resolved: list[tuple[config.QueueSpec, registry.JobType] | None] = []
    for spec, where in zip(specs, pointers, strict=True):
        try:
            resolved.append(None if spec.idempotency_key in known else _resolve(spec, where, project.slug, pools))
        except InvalidJob as error:
            if isinstance(error, UnknownJobType) and len(specs) == 1:
                raise
            errors += error.errors
            missing.append(error.of_others if isinstance(error, NoSuchPool) else False)
            pools_only &= isinstance(error, NoSuchPool)
    if errors and pools_only:
        raise NoSuchPool(errors, of_others=any(missing))
    if errors:
        raise InvalidJob(errors)
    now = clock.now()
    drafts = [
        None if found is None else intake.Draft(_row(spec, project, *found, now, where))
        for spec, where, found in zip(specs, pointers, resolved, strict=True)
    ]
    if by_parts:
        for draft in drafts:
            if draft is not None:
                draft.text = intake.text_of(draft.job)
    return Prepared(project, specs, pointers, resolved, drafts)


def submit_specs(
    project: Project,
    specs: Sequence[JobSpec],
    *,
    pointer: str = "",
    pointers: Sequence[str] | None = None,
) -> list[Accepted]:
    """Accept all of `specs` or none. `pointer` is where the list stands in the request, `pointers` where each one does.

    Raises `InvalidJob`, `QueueFull`, `QueueTooSmall`, `QueueDraining`, `IdempotencyKeyReused`, `BatchClosed`.
    """
    return _submit(project, specs, pointer, pointers)


@intake.after_what_is_taken_in
@again_after_deadlock
def _submit(project: Project, specs: Sequence[JobSpec], pointer: str, pointers: Sequence[str] | None) -> list[Accepted]:
    return accept(prepare(project, specs, pointer=pointer, pointers=pointers))


def accept(prepared: Prepared, *, batch: Batch | None = None, by_parts: bool = False) -> list[Accepted]:
    """Accept what was prepared, into `batch` where one is given and locked. `by_parts` leaves the rows to `intake`."""
    try:
        return _insert(prepared, batch, by_parts)
    except IntegrityError:
        # Another process accepted the same idempotency key between our look and our insert: now it is found.
        return _insert(prepared, batch, by_parts)


def _insert(prepared: Prepared, batch: Batch | None, by_parts: bool) -> list[Accepted]:
    project, specs, pointers = prepared.project, prepared.specs, prepared.pointers
    unique = {draft.job.unique_key for draft in prepared.drafts if draft and draft.job.unique_key}
    with transaction.atomic():
        if unique:
            # One at a time: of two twins that come at once, neither would see the other.
            Project.objects.select_for_update(no_key=True).get(pk=project.pk)
        now = clock.now()
        awaited = lock_dependencies(specs, project)
        named = (
            open_batches.lock(project, [spec.batch for spec in specs if spec.batch is not None]) if not batch else {}
        )
        queue_room.lock([found[0].id for found in prepared.resolved if found is not None])
        known = idempotency.existing(project, specs, pointers)
        intake.check_free(
            project,
            {spec.idempotency_key for spec in specs if spec.idempotency_key and spec.idempotency_key not in known}
            | unique,
        )
        twins = _twins(unique, now)
        drawn = _Drawn(prepared, known, twins)
        for position, spec in enumerate(specs):
            draft = drawn.draw(position, now)
            if draft is None:
                continue
            into = batch
            if spec.batch is not None and batch is None:
                into = open_batches.open_one(named.get(spec.batch), f"{pointers[position]}/batch")
            if into is not None:
                draft.job.batch_id = into.pk
            if spec.after:
                draft.after = _dependencies(spec, awaited, pointers[position])
        queue_room.claim([(queue, job) for queue, job in _with_queue(draft.job for draft in drawn.drafts)])
        idempotency.remember(project, drawn.answered)
        if by_parts and batch is not None:
            intake.write(project, batch, drawn.drafts, now)
        else:
            _write(project, drawn.drafts, now)
    return drawn.answers()


class _Drawn:
    """Goes through submissions in order and finds for each one the job that answers it."""

    def __init__(self, prepared: Prepared, known: Mapping[str, Job], twins: dict[str, Job]) -> None:
        self._prepared = prepared
        self._known = known
        self._twins = twins
        self._new: dict[str, intake.Draft] = {}
        """Drafts of this request, by unique key."""
        self._seen: dict[str, int] = {}
        """Positions of idempotency keys in this request."""
        self._answers: list[Accepted] = []
        self.drafts: list[intake.Draft] = []
        """What is to be written."""
        self.answered: list[tuple[str, str, Job]] = []
        """Keys, with the hashes of their requests, that jobs answer which were there before."""

    def draw(self, position: int, now: datetime) -> intake.Draft | None:
        """The draft that is to be written for the submission, None where another job answers it."""
        spec, key = self._prepared.specs[position], self._prepared.specs[position].idempotency_key
        if key and key in self._known:
            self._answer(self._known[key])
            return None
        if key and key in self._seen:
            if self._prepared.specs[self._seen[key]].digest != spec.digest:
                where = self._prepared.pointers[position]
                raise IdempotencyKeyReused(f"{where}: the idempotency key stands twice, with other bodies.")
            self._answer(self._answers[self._seen[key]].job)
            return None
        if key:
            self._seen[key] = position
        draft = self._draft(position, now)
        unique = draft.job.unique_key
        if unique is not None and unique in self._twins:
            if key:
                self.answered.append((key, spec.digest, self._twins[unique]))
            self._answer(self._twins[unique])
            return None
        if unique is not None and unique in self._new:
            if key:
                self._new[unique].keys.append((key, spec.digest))
            self._answer(self._new[unique].job)
            return None
        if unique is not None:
            self._new[unique] = draft
        self.drafts.append(draft)
        self._answers.append(Accepted(draft.job, created=True))
        return draft

    def _draft(self, position: int, now: datetime) -> intake.Draft:
        """A fresh one: an attempt before this one may have been rolled back."""
        prepared = self._prepared.drafts[position]
        if prepared is None:  # its key was known when we looked, and was pruned since
            spec, where = self._prepared.specs[position], self._prepared.pointers[position]
            found = _resolve(spec, where, self._prepared.project.slug, KnownPools())
            return intake.Draft(_row(spec, self._prepared.project, *found, now, where))
        if prepared.job.pk is not None:
            prepared.job.pk = None
        return intake.Draft(prepared.job, prepared.text)

    def _answer(self, job: Job) -> None:
        self._answers.append(Accepted(job, created=False))

    def answers(self) -> list[Accepted]:
        return self._answers


def _write(project: Project, drafts: Sequence[intake.Draft], now: datetime) -> None:
    """The rows, all at once."""
    effects = Effects()
    intake.write_rows(effects, drafts)
    idempotency.remember(project, [(key, digest, draft.job) for draft in drafts for key, digest in draft.keys])
    apply(effects, now)


def _with_queue(rows: Iterable[Job]) -> Iterable[tuple[config.QueueSpec, Job]]:
    queues = config.current().queues
    return ((queues[job.queue_id], job) for job in rows)


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


__all__ = ["Accepted", "ordering_key_of", "submit", "submit_specs"]
