"""Admits candidates through the engine: under their callers' limits, and on accounts of their pools.

A pool that denied a candidate gets none until its time has come, and then one at first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from queues import config, registry
from queues.dispatcher.group_cursor import Candidate
from queues.dispatcher.wait_ledger import Cause
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
MAX_BATCH = 64
"""Candidates admitted in one round trip at most."""


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


class PoolMemory:
    """What the dispatcher remembers of each pool: until when it is blocked, and how many candidates to admit in one batch.
    Times are monotonic seconds."""

    def __init__(self) -> None:
        self._blocks: dict[tuple[str, int], tuple[float, Cause]] = {}
        self._batch_limits: dict[str, int] = {}

    def unblock(self) -> None:
        """Drop all blocks."""
        self._blocks.clear()

    def block(self, pool: str, priority: int, until: float, cause: Cause) -> None:
        """Don't try the pool for this priority until then."""
        self._blocks[pool, priority] = (until, cause)

    def blocked_until(self, pool: str, priority: int) -> float:
        """0.0: it is not blocked."""
        return self._blocks[pool, priority][0] if (pool, priority) in self._blocks else 0.0

    def cause(self, pool: str, priority: int) -> Cause:
        """Why it is blocked; only for a pool that was."""
        return self._blocks[pool, priority][1]

    def batch_limit(self, pool: str) -> int:
        """How many candidates of the pool go into the next batch at most."""
        return self._batch_limits.get(pool, MAX_BATCH) if pool else MAX_BATCH

    def learn(self, asked: Iterable[str], denied: set[str]) -> None:
        """A pool that denied gets one candidate in the next batch, and twice as many each time that it admits all."""
        for pool in asked:
            self._batch_limits[pool] = 1 if pool in denied else min(self._batch_limits.get(pool, 1) * 2, MAX_BATCH)
