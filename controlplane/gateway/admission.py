"""The admission of a call: its caller's limits and an account in one step, waiting in order of arrival."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from controlplane.gateway.call import Call
from controlplane.http.threads import Threads
from quotas.engine.errors import LimiterUnavailable
from quotas.engine.types import Admission, AdmitRequest, CallOutcome, Decision, Limit, PoolSpec
from quotas.runtime.connection import accounts
from quotas.services import accounts as pools
from quotas.services import deferred_settlement, limits, outcomes
from quotas.services.limits_async import AsyncChecks
from quotas.snapshot.config import ConfigSnapshot

MARGIN = 10.0
"""Seconds that a caller's slot outlives the provider's timeout."""
UNUSED = CallOutcome("unused")


class Refused(Exception):
    """The call may not go now; `admission` says why and until when."""

    def __init__(self, admission: Admission) -> None:
        super().__init__(admission.binding)
        self.admission = admission


@dataclass(slots=True)
class Admissions:
    """One event loop's way to the engine."""

    threads: Threads
    checks: AsyncChecks
    tasks: set[asyncio.Future[Any]] = field(default_factory=set)
    """What still has to be settled."""

    def background(self, work: Coroutine[Any, Any, Any]) -> asyncio.Future[Any]:
        """Run to its end, also where the caller is gone."""
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def first(self, call: Call, held: ConfigSnapshot) -> Admission:
        """Admit a call. Raises `Refused`, and what resolving limits and the engine raise. Cancelled, it charges
        nothing."""
        began = time.perf_counter()
        applying = call.question.limits(held)
        life = call.pool.provider.timeout + MARGIN
        applying = tuple(
            replace(limit, lease_ttl=life) if limit.algorithm == "concurrency" and limit.lease_ttl < life else limit
            for limit in applying
        )
        request = replace(self._request(call, held), limits=applying)
        admission = await self._ask(request, call.wishes.wait)
        if admission.allowed or admission.bound_by == "limit":
            limits.emit_decision(call.question, _decision(admission), time.perf_counter() - began)
        if not admission.allowed:
            raise Refused(admission)
        return admission

    async def another(self, call: Call, held: ConfigSnapshot, refused_by: str, wait: float) -> Admission:
        """An account for a call whose last account did not do it; the caller is not charged again."""
        admission = await self._ask(self._request(call, held, without=refused_by), wait)
        if not admission.allowed:
            raise Refused(admission)
        return admission

    async def settle(self, lease: str, outcome: CallOutcome, life: float) -> None:
        """Report how a call went to its account."""
        await self.threads.waiting(
            lambda: deferred_settlement.settled(
                f"lease {lease[:6]}..", lambda: pools.settle_outcome(lease, outcome), life=life
            )
        )

    async def close(self, reservation: str, actual: Mapping[str, int], outcome: CallOutcome) -> None:
        """Replace what the caller was charged by what was used."""

        def settle() -> None:
            settled = limits.settle_or_later(reservation, actual)
            if settled is not None and not settled.repeated:
                outcomes.of_reservation(settled.limits, outcome)

        await self.threads.waiting(settle)

    async def give_back(self, admission: Admission, units: Mapping[str, int]) -> None:
        """Return all that an admission has reserved: no call was made."""
        if admission.lease:
            await self.settle(admission.lease, UNUSED, admission.expires_in)
        if admission.reservation:
            await self.close(admission.reservation, dict.fromkeys([*units, "requests"], 0), UNUSED)

    @staticmethod
    def _request(call: Call, held: ConfigSnapshot, without: str = "") -> AdmitRequest:
        spec = call.pool.spec
        fallbacks = tuple(
            found.spec
            for name in spec.fallback
            if (found := held.pools.get(name)) is not None and found.is_open_to(call.project)
        )
        return AdmitRequest(
            pool=spec, fallbacks=fallbacks, cost=call.cost, priority=call.wishes.priority, key=call.key,
            model=call.model, without=without,
        )  # fmt: skip

    async def _ask(self, request: AdmitRequest, wait: float) -> Admission:
        asking = _Asking(self, request)
        if not wait:
            return await asking.once()
        assert request.pool is not None
        line = [limit for limit in request.limits if limit.limit is not None]
        line += [_line_of(pool) for pool in (request.pool, *request.fallbacks)]
        await self.checks.line().check(line, asking, max_wait=wait)
        assert asking.last is not None
        return asking.last


@dataclass(slots=True)
class _Asking:
    """The questions of one call that waits: what a line of waiting checks asks instead of the limiter."""

    admissions: Admissions
    request: AdmitRequest
    last: Admission | None = field(default=None)

    async def once(self) -> Admission:
        asked = asyncio.ensure_future(_awaited(self.admissions.threads.short(lambda: pools.admit(self.request))))
        try:
            return await asyncio.shield(asked)
        except asyncio.CancelledError:
            self.admissions.background(self._undo(asked))
            raise

    async def _undo(self, asked: asyncio.Future[Admission]) -> None:
        try:
            admission = await asked
        except LimiterUnavailable:
            return  # nothing is known to be charged
        if admission.allowed:
            await self.admissions.give_back(admission, self.request.cost)

    async def check(self, *, dry_run: bool) -> Decision:
        if dry_run:
            explained = await self.admissions.threads.waiting(lambda: accounts().explain(self.request))
            self.last = explained.admission
        else:
            self.last = await self.admissions.threads.waiting(lambda: pools.admit(self.request))
        return _decision(self.last)

    async def refund(self, decision: Decision) -> None:
        if self.last is not None and self.last.allowed:
            await self.admissions.give_back(self.last, self.request.cost)


def _decision(admission: Admission) -> Decision:
    return Decision(
        allowed=admission.allowed, limits=admission.limits, retry_after=admission.retry_after,
        binding=admission.binding, reservation=admission.reservation,
        impossible=admission.impossible or admission.disabled,
    )  # fmt: skip


def _line_of(pool: PoolSpec) -> Limit:
    """The line in which calls wait for a pool: nothing is counted by it, it only has a name and a place."""
    return Limit(
        id=f"w{pool.id}", name=pool.name, scope="global", subject="*", algorithm="fixed_window", limit=1, window=60.0
    )


async def _awaited(work: Awaitable[Admission]) -> Admission:
    return await work
