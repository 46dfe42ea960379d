"""Admits candidates through the engine, under limits and on accounts of pools, and puts the admitted ones on the belt.

A job gets on the belt by one fenced transaction in SQL, then by a parcel for RQ. What was admitted and is not released
returns what it had reserved.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from django.db import transaction

from queues import broker, config, hops, registry
from queues.dispatcher.candidates import Candidate
from queues.dispatcher.leader import Leader
from queues.ids import new_id
from queues.lifecycle.delivery import Release
from queues.lifecycle.delivery import release as mark_released
from quotas.engine.accounts.accounts import Accounts
from quotas.engine.limits.fallback import ResilientLimiter
from quotas.engine.limits.limiter import Limiter
from quotas.engine.types import Admission, AdmitRequest, CallOutcome, Limit, PoolSpec
from quotas.errors import UnknownPool
from quotas.services.account_changes import publish_admitted
from quotas.snapshot import resolve as policies

UNUSED = CallOutcome("unused")
"""Settles a lease whose call was never made: everything reserved is released."""
MARGIN = 30.0
"""Seconds from a release to its start and from an end to its settling."""
PARCEL_SIZE = 20
"""Deliveries in one RQ job at most."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What a candidate needs to be admitted: its limits, and an account of its pool or of a pool that it falls back to."""

    candidate: Candidate
    limits: tuple[Limit, ...]
    pool: PoolSpec | None
    fallbacks: tuple[PoolSpec, ...] = ()

    @property
    def is_empty(self) -> bool:
        """It has no limit and needs no account, so the engine is not called."""
        return not self.limits and self.pool is None


class Admissions:
    """Admits candidates by the engine, in one round trip for a whole batch."""

    def __init__(self, accounts: Accounts, limiter: Limiter | ResilientLimiter) -> None:
        self._accounts = accounts
        self._limiter = limiter

    def resolve(self, candidate: Candidate) -> Demand:
        """Which limits apply to a job, and which pool it uses. Raises `KeyError`, `UnknownPool` or `UnknownProject` if
        one of them was removed."""
        cfg = config.current()
        queue = cfg.queues[candidate.queue_id]
        project = cfg.projects[candidate.project_id].slug
        limits = policies.resolve_job(
            project=project,
            user=candidate.user or None,
            keys=candidate.keys,
            queue=queue.name,
            cost=candidate.cost,
            priority=candidate.priority,
        )
        name = candidate.pool or queue.pool
        if not name and registry.needs_pool(candidate.type):
            raise UnknownPool("Neither the job nor its queue names a pool.")
        if any(limit.algorithm == "concurrency" for limit in limits):
            limits = _with_slots_until(limits, (candidate.timeout or queue.timeout) + MARGIN)
        pool = policies.pool_spec(name, project) if name else None
        fallbacks = policies.fallbacks_of(pool, project) if pool is not None else ()
        return Demand(candidate, limits, pool, fallbacks)

    def admit(self, demands: Sequence[Demand]) -> list[Admission]:
        """Decide all in one round trip, in order."""
        pending = [demand for demand in demands if not demand.is_empty]
        if not pending:
            return [Admission(True) for _ in demands]
        admissions = self._accounts.admit_many([_request(demand) for demand in pending])
        publish_admitted(admissions)
        decided = iter(admissions)
        return [Admission(True) if demand.is_empty else next(decided) for demand in demands]

    def release_unused(self, candidate: Candidate, admission: Admission) -> None:
        """Release what an unused admission reserves. Its token is deleted first, so that no replay charges for it."""
        if admission.lease or admission.reservation:
            self._accounts.forget(candidate.token)
        if admission.lease:
            self._accounts.settle(admission.lease, UNUSED)
        if admission.reservation:
            self._limiter.settle(admission.reservation, dict.fromkeys([*candidate.cost, "requests"], 0))


def _request(demand: Demand) -> AdmitRequest:
    candidate = demand.candidate
    return AdmitRequest(
        limits=demand.limits,
        pool=demand.pool,
        fallbacks=demand.fallbacks,
        cost=candidate.cost,
        priority=candidate.priority,
        key=next(iter(candidate.keys.values()), ""),
        token=candidate.token,
        model=candidate.model,
        without="" if candidate.refused_by is None else str(candidate.refused_by),
    )


def _with_slots_until(limits: tuple[Limit, ...], seconds: float) -> tuple[Limit, ...]:
    """The limits with concurrency slots that do not expire while the job runs. Its end returns them, or the
    reconciler."""
    return tuple(
        replace(limit, lease_ttl=seconds) if limit.algorithm == "concurrency" and limit.lease_ttl < seconds else limit
        for limit in limits
    )


# From the engine to the belt


@dataclass(frozen=True, slots=True)
class Granted:
    """A candidate that was admitted, with what was reserved for it."""

    candidate: Candidate
    admission: Admission

    @property
    def delivery(self) -> int:
        """The fencing number of this release."""
        return self.candidate.delivery + 1


def lane_for(candidate: Candidate) -> str:
    """The worker lane: its queue's, but `cpu` for a suspect, which runs alone in a forked process."""
    queue = config.current().queues[candidate.queue_id]
    return "cpu" if candidate.suspect else queue.lane


def release(leader: Leader, granted: Sequence[Granted], workers: dict[str, int]) -> list[Granted]:
    """Mark `granted` as on the belt and put them there. `workers` counts worker processes by lane.

    Returns those that were no longer ready (cancelled meanwhile): the caller releases their admissions. Raises
    `LeadershipLost`; nothing is written then.
    """
    parcels = list(_parcels(granted, workers))
    with transaction.atomic():
        leader.fence()
        written = mark_released(
            [
                Release(
                    item.candidate.id,
                    item.delivery,
                    parcel_id,
                    _int(item.admission.account_id),
                    item.admission.lease or "",
                    item.admission.reservation or "",
                )
                for parcel_id, _, items in parcels
                for item in items
            ]
        )
    if hops.observer is not None:
        hops.observer(hops.RELEASED)
    _enqueue(
        (parcel_id, lane, [item for item in items if item.candidate.id in written])
        for parcel_id, lane, items in parcels
    )
    if hops.observer is not None:
        hops.observer(hops.ENQUEUED)
    return [item for item in granted if item.candidate.id not in written]


def _int(value: str | None) -> int | None:
    return None if value is None else int(value)


def _parcels(granted: Sequence[Granted], workers: dict[str, int]) -> Iterable[tuple[str, str, list[Granted]]]:
    """Split by lane, evenly over the lane's workers; a forked process gets one delivery each."""
    by_lane: dict[str, list[Granted]] = {}
    for item in granted:
        by_lane.setdefault(lane_for(item.candidate), []).append(item)
    for lane, items in by_lane.items():
        share = -(-len(items) // max(workers.get(lane, 1), 1))
        size = 1 if lane == "cpu" else min(max(share, 1), PARCEL_SIZE)
        for start in range(0, len(items), size):
            yield new_id(), lane, items[start : start + size]


def _enqueue(parcels: Iterable[tuple[str, str, list[Granted]]]) -> None:
    """Enqueue the parcels in RQ. If Redis is unavailable, the reconciler finds the rows whose parcels are on no belt."""
    by_lane: dict[str, list[tuple[str, list[broker.Delivery]]]] = {}
    for parcel_id, lane, items in parcels:
        if items:
            deliveries = [(item.candidate.id, item.delivery) for item in items]
            by_lane.setdefault(lane, []).append((parcel_id, deliveries))
    for lane, found in by_lane.items():
        broker.enqueue(lane, found)
