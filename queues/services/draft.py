"""Prepares submissions without a lock: looks up their names, estimates their costs, builds their jobs."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from queues import config, registry
from queues.errors import FieldError, InvalidJob, NoSuchPool, UnknownJobType
from queues.lifecycle.acceptance import new_job
from queues.models import Job
from queues.request_fields import Cost
from queues.services import idempotency
from queues.specs import JobSpec
from queues.transactions import in_turns
from quotas import clock, tracing
from quotas.models import Pool, Project
from quotas.rest.fingerprints import fingerprint
from quotas.snapshot import resolve


@dataclass(slots=True)
class Draft:
    """A job that is no row yet."""

    job: Job
    text: str = ""
    """The job as JSON, if `intake` is to write it in parts."""
    after: Sequence[int] = ()
    """Jobs that it waits for."""
    keys: list[tuple[str, str]] = field(default_factory=list)
    """Further idempotency keys, with the hashes of their requests, that this job answers."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """Submissions of one request. A draft is None if the job is known by its idempotency key: what was accepted before
    is answered, whatever would be accepted now."""

    project: Project
    specs: Sequence[JobSpec]
    pointers: Sequence[str]
    """Where each of them is in the request."""
    drafts: Sequence[Draft | None]
    at: datetime
    """When they were prepared."""


class KnownPools:
    """The pools that one submission may name, from this process's configuration; newer ones are looked up in SQL."""

    def __init__(self) -> None:
        self._pools = resolve.snapshot().pools
        self._newer: dict[str, Collection[str] | None] = {}

    def check(self, name: str, project: str, pointer: str, detail: str) -> None:
        """Raises `NoSuchPool` with `detail`, which is the same for a pool that is missing and one of other projects."""
        pool = self._pools.get(name)
        if pool is not None and pool.is_open_to(project):
            return
        if pool is None and name not in self._newer:
            found = Pool.objects.filter(name=name).values_list("projects", flat=True)
            if not found:
                raise NoSuchPool([FieldError(pointer, detail)], of_others=False)
            self._newer[name] = found[0]
        projects = pool.projects if pool is not None else self._newer[name]
        if projects is not None and project not in projects:
            raise NoSuchPool([FieldError(pointer, detail)], of_others=True)


def prepare(
    project: Project, specs: Sequence[JobSpec], *, pointer: str = "", pointers: Sequence[str] | None = None
) -> Prepared:
    """Everything that needs no lock, estimates of costs too, which may be user's code. `pointer` is where the list is in
    the request, `pointers` where each submission is.

    Raises `InvalidJob`, `IdempotencyKeyReused`.
    """
    pointers = pointers or [f"{pointer}/{position}" if pointer else "" for position in range(len(specs))]
    known = idempotency.existing(project, specs, pointers) if any(spec.idempotency_key for spec in specs) else {}
    resolved = _resolve_all(project, specs, pointers, known)
    now = clock.now()
    drafts = [
        None if found is None else Draft(_build(spec, project, *found, now, where))
        for spec, where, found in zip(in_turns(specs), pointers, resolved, strict=True)
    ]
    if tracing.is_on():
        tracing.submitted([draft.job.uid for draft in drafts if draft is not None])
    return Prepared(project, specs, pointers, drafts, now)


def draft_of(project: Project, spec: JobSpec, pointer: str, now: datetime) -> Draft:
    """One submission alone. Raises `InvalidJob`."""
    return Draft(_build(spec, project, *_resolve(spec, pointer, project.slug, KnownPools()), now, pointer))


def plain_job(project: Project, spec: JobSpec) -> Job:
    """The job of a submission without times of its own. The statement that inserts it may set its time of creation. Raises
    `InvalidJob`."""
    job = _build(spec, project, *_resolve(spec, "", project.slug, KnownPools()), clock.stamp(), "")
    if tracing.is_on():
        tracing.submitted([job.uid])
    return job


def check(spec: JobSpec, project: str) -> None:
    """Whether its type, queue, pool and payload would be accepted of the project now. Raises `InvalidJob`."""
    _resolve(spec, "", project, KnownPools())


Resolved = tuple[config.QueueSpec, registry.JobType]


def _resolve_all(
    project: Project, specs: Sequence[JobSpec], pointers: Sequence[str], known: Mapping[str, Job]
) -> list[Resolved | None]:
    """Look up the names of all that are not known; raises `InvalidJob` with all that is wrong in any of them."""
    pools = KnownPools()
    resolved: list[Resolved | None] = []
    errors: list[FieldError] = []
    pool_errors: list[NoSuchPool] = []
    pools_only = True
    for spec, where in zip(in_turns(specs), pointers, strict=True):
        try:
            resolved.append(None if spec.idempotency_key in known else _resolve(spec, where, project.slug, pools))
        except NoSuchPool as error:
            errors += error.errors
            pool_errors.append(error)
        except InvalidJob as error:
            if isinstance(error, UnknownJobType) and len(specs) == 1:
                raise
            errors += error.errors
            pools_only = False
    if errors and pools_only:
        raise NoSuchPool(errors, of_others=any(error.of_others for error in pool_errors))
    if errors:
        raise InvalidJob(errors)
    return resolved


def _resolve(spec: JobSpec, pointer: str, project: str, known_pools: KnownPools) -> Resolved:
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


def _build(
    spec: JobSpec,
    project: Project,
    queue: config.QueueSpec,
    job_type: registry.JobType,
    now: datetime | None,
    pointer: str,
) -> Job:
    """`now` may be None for a submission without times of its own."""
    cost = dict(spec.cost) if spec.cost is not None else _estimate(spec, job_type, pointer)
    cost.setdefault("requests", 1)
    own_pool = job_type.pool(spec.payload)
    pool = own_pool or queue.pool
    cost = job_type.complete_cost(spec.payload, pool, cost)
    model = job_type.model(spec.payload, pool)
    job = new_job(
        held=spec.held or ("waits for other jobs" if spec.after else ""),
        not_before=_not_before(spec, now),
        project_id=project.pk,
        queue_id=queue.id,
        type=spec.type,
        payload=dict(spec.payload),
        pool=own_pool or "",
        model=model,
        priority=level_of(spec.priority, queue.priority_levels),
        user=spec.user,
        keys=dict(spec.keys),
        cost=cost,
        max_attempts=spec.max_attempts or queue.retry.max_attempts,
        timeout=spec.timeout,
        delivery_mode=job_type.delivery if spec.delivery == "at_least_once" else spec.delivery,
        callback_url=spec.callback_url,
        idempotency_key=spec.idempotency_key,
        request_hash=spec.digest if spec.idempotency_key else "",
        ordering_key=ordering_key_of(spec.user, spec.keys, model),
        created_at=now,
    )
    job._state.fields_cache["project"] = project  # so that it is not read again
    if spec.unique_for is not None:
        assert now is not None
        job.unique_key = _unique_key(spec, project, queue)
        job.unique_until = now + timedelta(seconds=spec.unique_for)
    return job


def _not_before(spec: JobSpec, now: datetime | None) -> datetime | None:
    if spec.run_at is None and not spec.delay:
        return None
    assert now is not None
    found = spec.run_at or now + timedelta(seconds=spec.delay)
    return found if found > now else None


def _unique_key(spec: JobSpec, project: Project, queue: config.QueueSpec) -> str:
    """A hash of the caller's own key; without one, of type, queue and payload."""
    seed = spec.unique_key
    if seed is None:
        seed = f"{spec.type}\x00{queue.name}\x00{fingerprint(dict(spec.payload))}"
    return hashlib.blake2b(f"{project.pk}\x00{seed}".encode(), digest_size=16).hexdigest()


def _estimate(spec: JobSpec, job_type: registry.JobType, pointer: str) -> dict[str, int]:
    """The type's own estimate of the cost, checked by the same rules as a caller's, since it may be user's code."""
    errors: list[FieldError] = []
    try:
        cost = Cost().read(dict(job_type.cost(spec.payload)), f"{pointer}/cost", errors.append)
    except Exception as error:  # noqa: BLE001 - an estimate may be user's code: reported as a mistake of the submission
        errors.append(
            FieldError(f"{pointer}/cost", f"The type's estimate failed: {type(error).__name__}: {error}"[:300])
        )
    if errors or cost is None:
        raise InvalidJob(errors)
    return cost


def ordering_key_of(user: str, keys: Mapping[str, str], model: str = "") -> str:
    """Jobs with equal ordering keys start in order: those of one user and one set of keys; without either, those of one
    model."""
    if not user and not keys:
        return hashlib.blake2b(f"\x02{model}".encode(), digest_size=12).hexdigest() if model else ""
    text = "\x00".join([user, *(f"{name}\x01{value}" for name, value in sorted(keys.items()))])
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def level_of(priority: int, levels: int) -> int:
    """The priority that stands for all of its level in a queue of so many: ten keep all apart, with three they are
    `high` (1), `normal` (5) and `low` (8), with one (5) there is a single level."""
    return (priority * levels // 10 * 10 + 5) // levels
