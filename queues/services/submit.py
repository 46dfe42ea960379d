"""Accepting jobs. What this returns is in SQL, committed with the caller's transaction, and is not lost."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from django.db import IntegrityError, transaction

from queues import clock, config, registry
from queues.connection import Group, ring
from queues.errors import FieldError, IdempotencyConflict, InvalidJob, NoSuchPool, UnknownJobType
from queues.models import Batch, Job, JobDependency
from queues.services import capacity
from queues.services.deadlock import again_after_deadlock
from queues.services.pool_access import KnownPools
from queues.specs import JobSpec, read_cost, read_job
from queues.states import FINAL, Stage, Status
from queues.types.http_request import HttpRequest
from quotas.models import Project


@dataclass(frozen=True, slots=True)
class Accepted:
    """One answer to a submission. `created` is False where an idempotency key or `unique_for` found a job."""

    job: Job
    created: bool


def lane_of(user: str, keys: Mapping[str, str], model: str = "") -> str:
    """The line in which jobs of one user and one set of keys wait; where there is neither, those of one model."""
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
        config.snapshot.outdate()
        queue = config.current().queue_named.get(name)
    if queue is None:
        errors.append(FieldError(f"{pointer}/queue", f"There is no queue {name!r}."))
    errors += job_type.validate(spec.payload, f"{pointer}/payload")
    if errors or queue is None:
        raise InvalidJob(errors)
    pool = job_type.pool(spec.payload) or queue.pool
    if spec.type == "http.request" and pool is None:
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
    batch: Batch | None,
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
    job = Job(
        project=project,
        queue_id=queue.id,
        batch=batch,
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
        status=Status.PENDING,
        stage=Stage.HELD if held else Stage.SCHEDULED if not_before else Stage.READY,
        lane=lane_of(spec.user, spec.keys, model),
        not_before=not_before,
        created_at=now,
        reason=held or ("waits for its time" if not_before else ""),
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
    from queues.specs import digest_of

    return digest_of(dict(spec.payload))


def lock_dependencies(specs: Sequence[JobSpec], project: Project) -> dict[str, Job]:
    """The project's jobs that `after` names anywhere in `specs`, by id.

    Held until the commit: one that ends meanwhile would not see that somebody waits for it. All at once and in one
    order, and before batches and queues, as those do that end jobs.
    """
    uids = {uid for spec in specs for uid in spec.after}
    if not uids:
        return {}
    rows = Job.objects.filter(uid__in=uids, project=project).order_by("pk").select_for_update(no_key=True)
    return {job.uid: job for job in rows}


def _dependencies(spec: JobSpec, found: Mapping[str, Job], pointer: str) -> list[Job]:
    """The jobs that `after` names, of those that were found."""
    errors = [
        FieldError(f"{pointer}/after/{position}", "There is no such job in this project.")
        for position, uid in enumerate(spec.after)
        if uid not in found
    ]
    if errors:
        raise InvalidJob(errors)
    return [found[uid] for uid in spec.after]


def _twin(job: Job, now: datetime) -> Job | None:
    """The waiting or running job that `unique_for` would double."""
    return (
        Job.objects.filter(unique_key=job.unique_key, unique_until__gt=now)
        .exclude(status__in=FINAL)
        .order_by("id")
        .first()
    )


def _existing(project: Project, specs: Sequence[JobSpec], pointers: Sequence[str]) -> dict[str, Job]:
    """Jobs that were accepted before under the idempotency keys of `specs`."""
    keys = [spec.idempotency_key for spec in specs if spec.idempotency_key]
    found: dict[str, Job] = {}
    for start in range(0, len(keys), 500):
        for row in Job.objects.filter(project=project, idempotency_key__in=keys[start : start + 500]):
            found[row.idempotency_key or ""] = row
    for spec, pointer in zip(specs, pointers, strict=True):
        job = found.get(spec.idempotency_key or "")
        if job is not None and job.request_hash != spec.digest:
            raise IdempotencyConflict(f"{pointer or 'This request'}: the idempotency key was used with another body.")
    return found


def check(spec: JobSpec, project: str) -> None:
    """Whether its type, queue, pool and payload would be accepted of the project now. Raises `InvalidJob`."""
    _resolve(spec, "", project, KnownPools())


@again_after_deadlock
def submit_specs(
    project: Project,
    specs: Sequence[JobSpec],
    *,
    batch: Batch | None = None,
    pointer: str = "",
    pointers: Sequence[str] | None = None,
    lookup_batches: bool = True,
) -> list[Accepted]:
    """Accept all of `specs` or none. `pointer` is where the list stands in the request, `pointers` where each one does.

    Raises `InvalidJob`, `QueueFull`, `QueueTooSmall`, `QueueDraining`, `IdempotencyConflict`, `BatchClosed`.
    """
    pointers = pointers or [f"{pointer}/{position}" if pointer else "" for position in range(len(specs))]
    pools = KnownPools()
    errors: list[FieldError] = []
    missing: list[bool] = []
    pools_only = True
    resolved = []
    for spec, where in zip(specs, pointers, strict=True):
        try:
            resolved.append(_resolve(spec, where, project.slug, pools))
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
    try:
        return _insert(project, specs, pointers, resolved, batch, lookup_batches)
    except IntegrityError:
        # Another process accepted the same idempotency key between our look and our insert: now it is found.
        return _insert(project, specs, pointers, resolved, batch, lookup_batches)


def _insert(
    project: Project,
    specs: Sequence[JobSpec],
    pointers: Sequence[str],
    resolved: Sequence[tuple[config.QueueSpec, registry.JobType]],
    batch: Batch | None,
    lookup_batches: bool,
) -> list[Accepted]:
    from queues.services import batches

    with transaction.atomic():
        if any(spec.unique_for is not None for spec in specs):
            # One at a time: of two twins that come at once, neither would see the other.
            Project.objects.select_for_update(no_key=True).get(pk=project.pk)
        now = clock.now()
        awaited = lock_dependencies(specs, project)
        named = (
            batches.lock(project, [spec.batch for spec in specs if spec.batch is not None]) if lookup_batches else {}
        )
        capacity.lock([queue.id for queue, _ in resolved])
        existing = _existing(project, specs, pointers)
        answers: list[Accepted | None] = [None] * len(specs)
        rows: list[Job] = []
        places: list[int] = []
        waits_for: list[tuple[Job, list[Job]]] = []
        seen: dict[str, int] = {}
        repeats: list[tuple[int, int]] = []
        for position, (spec, (queue, job_type)) in enumerate(zip(specs, resolved, strict=True)):
            key = spec.idempotency_key
            if key and key in existing:
                answers[position] = Accepted(existing[key], created=False)
                continue
            if key and key in seen:
                if specs[seen[key]].digest != spec.digest:
                    raise IdempotencyConflict(
                        f"{pointers[position]}: the idempotency key stands twice, with other bodies."
                    )
                repeats.append((position, seen[key]))
                continue
            into = batch
            if lookup_batches and spec.batch is not None:
                into = batches.open_one(named.get(spec.batch), f"{pointers[position]}/batch")
            job = _row(spec, project, queue, job_type, into, now, pointers[position])
            if job.unique_key is not None:
                twin = _twin(job, now) or next((row for row in rows if row.unique_key == job.unique_key), None)
                if twin is not None:
                    answers[position] = Accepted(twin, created=False)
                    continue
            others = _dependencies(spec, awaited, pointers[position])
            if others:
                waits_for.append((job, others))
            if key:
                seen[key] = position
            rows.append(job)
            places.append(position)
        capacity.claim([(queue, job) for queue, job in _with_queue(rows)])
        Job.objects.bulk_create(rows, batch_size=500)
        for position, made in zip(places, rows, strict=True):
            answers[position] = Accepted(made, created=True)
        for position, first in repeats:
            answers[position] = replace(answers[first], created=False)  # type: ignore[type-var]
        _hold(waits_for)
        groups = {(job.queue_id, job.priority, job.project_id, job.pool) for job in rows if job.stage == Stage.READY}
        timed = any(job.stage == Stage.SCHEDULED for job in rows)
        if groups or timed:
            transaction.on_commit(lambda: ring(groups))
    return [answer for answer in answers if answer is not None]


def _with_queue(rows: Iterable[Job]) -> Iterable[tuple[config.QueueSpec, Job]]:
    queues = config.current().queues
    return ((queues[job.queue_id], job) for job in rows)


def _hold(waits_for: Sequence[tuple[Job, list[Job]]]) -> None:
    """Write the dependencies; one that has ended already is looked at by the same rule as one that ends later."""
    if not waits_for:
        return
    from queues.services import dependencies

    JobDependency.objects.bulk_create(
        [JobDependency(job=job, after=other) for job, others in waits_for for other in others], batch_size=500
    )
    dependencies.settle_ended([other.pk for _, others in waits_for for other in others if other.status in FINAL])


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


__all__ = ["Accepted", "Group", "lane_of", "submit", "submit_specs"]
