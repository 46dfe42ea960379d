"""Admits candidates through the engine: under their callers' limits, and on accounts of their pools."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from queues import config, registry
from queues.dispatcher.group_cursor import Candidate
from quotas.engine.accounts.accounts import Accounts
from quotas.engine.limits.fallback import ResilientLimiter
from quotas.engine.limits.limiter import Limiter
from quotas.engine.types import Admission, AdmitRequest, CallOutcome, Limit, PoolSpec
from quotas.errors import UnknownPool
from quotas.services.accounts import publish_admitted
from quotas.snapshot import resolve as policies

UNUSED = CallOutcome("unused")
"""Settles a lease whose call was never made: everything reserved is released."""
MARGIN = 30.0
"""Seconds from a release to its start and from an end to its settling."""


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

    def give_back(self, candidate: Candidate, admission: Admission) -> None:
        """Return an admission that was not used. Its token goes first: what it stands for is charged no more."""
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
