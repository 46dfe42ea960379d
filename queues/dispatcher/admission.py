"""Asking the engine: may this job run now, under its caller's limits and on an account of its pool?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from queues import config, registry
from queues.dispatcher.candidate import Candidate
from quotas.engine.accounts.accounts import Accounts
from quotas.engine.limits.fallback import ResilientLimiter
from quotas.engine.limits.limiter import Limiter
from quotas.engine.types import Admission, AdmitRequest, Limit, Outcome, PoolSpec
from quotas.errors import UnknownPool
from quotas.services.accounts import publish_admitted
from quotas.snapshot import resolve as policies

UNUSED = Outcome("unused")
"""Settles a lease whose call was never made: everything reserved is given back."""
MARGIN = 30.0
"""Seconds from a release to its start and from an end to its settling."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One candidate with what it is held against."""

    candidate: Candidate
    limits: tuple[Limit, ...]
    pool: PoolSpec | None
    fallbacks: tuple[PoolSpec, ...] = ()

    @property
    def free(self) -> bool:
        """Nothing holds it back: the engine need not be asked."""
        return not self.limits and self.pool is None


class Admissions:
    """The dispatcher's door to the engine."""

    def __init__(self, accounts: Accounts, limiter: Limiter | ResilientLimiter) -> None:
        self._accounts = accounts
        self._limiter = limiter

    def resolve(self, candidate: Candidate) -> Asked:
        """Which limits apply to a job, and which pool it goes through. Raises
        `KeyError` or `UnknownPool` for what is gone."""
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
            limits = _held_long_enough(limits, (candidate.timeout or queue.timeout) + MARGIN)
        pool = policies.pool_spec(name, project) if name else None
        fallbacks = policies.fallbacks_of(pool, project) if pool is not None else ()
        return Asked(candidate, limits, pool, fallbacks)

    def admit(self, asked: Sequence[Asked]) -> list[Admission]:
        """Decide all in one round trip, in order."""
        answers: list[Admission | None] = [Admission(True) if item.free else None for item in asked]
        pending = [position for position, answer in enumerate(answers) if answer is None]
        if pending:
            requests = [
                AdmitRequest(
                    limits=asked[position].limits,
                    pool=asked[position].pool,
                    fallbacks=asked[position].fallbacks,
                    cost=asked[position].candidate.cost,
                    priority=asked[position].candidate.priority,
                    key=next(iter(asked[position].candidate.keys.values()), ""),
                    token=_token(asked[position].candidate),
                    model=asked[position].candidate.model,
                    without=_without(asked[position].candidate),
                )
                for position in pending
            ]
            given = self._accounts.admit_many(requests)
            publish_admitted(given)
            for position, answer in zip(pending, given, strict=True):
                answers[position] = answer
        return [answer for answer in answers if answer is not None]

    def give_back(self, candidate: Candidate, admission: Admission) -> None:
        """Return an admission that was not used. Its token goes first: what it stands for is charged no more."""
        if admission.lease or admission.reservation:
            self._accounts.forget(_token(candidate))
        if admission.lease:
            self._accounts.settle(admission.lease, UNUSED)
        if admission.reservation:
            self._limiter.settle(admission.reservation, dict.fromkeys([*candidate.cost, "requests"], 0))


def _token(candidate: Candidate) -> str:
    """Names the next delivery of a job, so that asking twice for it charges once."""
    return f"{candidate.uid}.{candidate.delivery + 1}"


def _without(candidate: Candidate) -> str:
    return "" if candidate.refused_by is None else str(candidate.refused_by)


def _held_long_enough(limits: tuple[Limit, ...], seconds: float) -> tuple[Limit, ...]:
    """Slots that don't run out under a job that still runs: it gives them back when it ends, or the reconciler does."""
    return tuple(
        replace(limit, lease_ttl=seconds) if limit.algorithm == "concurrency" and limit.lease_ttl < seconds else limit
        for limit in limits
    )
