"""The admission of a call: its caller's limits and an account in one step, waiting in order of arrival."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from controlplane.gateway.call import Call
from controlplane.gateway.progress import Progress
from controlplane.http.threads import Threads
from quotas.engine.errors import LimiterUnavailable, NotAsked
from quotas.engine.ids import random_id
from quotas.engine.limits.waiting import SERVER_PAUSE
from quotas.engine.types import Admission, AdmitRequest, CallOutcome, Decision, Limit, PoolSpec
from quotas.runtime.connection import accounts, limiter
from quotas.services import limits, unanswered
from quotas.services.admissions_async import AsyncAdmissions, Lease
from quotas.services.limits_async import AsyncChecks
from quotas.snapshot.config import ConfigSnapshot

MARGIN = 10.0
"""Seconds that a caller's slot outlives the provider's timeout."""
UNUSED = CallOutcome("unused")
PATIENCE = 1.0
"""Seconds for which a call that does not wait for capacity waits for Redis, counted from when it stopped answering."""


Renewed = Callable[[ConfigSnapshot, str], AdmitRequest]
"""The request for admission by a configuration and with a token: a call that waits is tried again by the one in force
then. The token is of all admissions of one call: where an answer was lost, the next one finds what was charged."""


class Refused(Exception):
    """The call is not admitted now; `admission` says why and until when."""

    def __init__(self, admission: Admission) -> None:
        super().__init__(admission.binding)
        self.admission = admission


class Admissions:
    """One event loop's admissions of calls."""

    def __init__(self, threads: Threads, checks: AsyncChecks) -> None:
        self.threads = threads
        self.checks = checks
        self.engine = AsyncAdmissions(checks, threads.waiting, self.background)
        self.tasks: set[asyncio.Future[Any]] = set()
        """What still has to be settled."""

    def background(self, work: Coroutine[Any, Any, Any]) -> asyncio.Future[Any]:
        """Run to its end, also where the caller is gone."""
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def first(self, call: Call, snapshot: ConfigSnapshot, progress: Progress) -> Admission:
        """Admit a call. Raises `Refused`, and what resolving limits and the engine raise. Cancelled, it charges
        nothing."""
        began = time.perf_counter()
        question = call.question
        life = call.pool.provider.timeout + MARGIN

        def request(now: ConfigSnapshot, token: str) -> AdmitRequest:
            applying = question.limits(now)
            if any(limit.lease_ttl < life for limit in applying if limit.algorithm == "concurrency"):
                applying = tuple(
                    replace(limit, lease_ttl=life)
                    if limit.algorithm == "concurrency" and limit.lease_ttl < life
                    else limit
                    for limit in applying
                )
            return self._request(call, now, token, limits=applying)

        admission = await self._ask(request, snapshot, progress, call.wishes.wait)
        if admission.allowed or admission.bound_by == "limit":
            limits.emit_decision(question, _decision(admission), time.perf_counter() - began)
        if not admission.allowed:
            raise Refused(admission)
        return admission

    async def another(
        self, call: Call, snapshot: ConfigSnapshot, progress: Progress, refused_by: str, wait: float
    ) -> Admission:
        """An account for a call whose last account did not do it; the caller is not charged again."""
        admission = await self._ask(
            lambda now, token: self._request(call, now, token, without=refused_by), snapshot, progress, wait
        )
        if not admission.allowed:
            raise Refused(admission)
        return admission

    def settle(self, lease: Lease, snapshot: ConfigSnapshot, *, linger: bool = False) -> asyncio.Future[Any]:
        """Report how a call went to its account, to the end, also where the caller is gone. `linger`: it is not urgent."""
        return self._tracked(self.engine.start_settling(lease, snapshot, linger=linger))

    def close(
        self,
        admission: Admission,
        actual: Mapping[str, int],
        outcome: CallOutcome,
        snapshot: ConfigSnapshot,
        *,
        linger: bool = False,
    ) -> asyncio.Future[Any]:
        """Replace what the caller was charged by what was used, to the end. `linger`: it is not urgent."""
        return self._tracked(self.engine.start_closing(admission, actual, outcome, snapshot, linger=linger))

    def _tracked(self, ending: asyncio.Future[Any]) -> asyncio.Future[Any]:
        if ending not in self.tasks:
            self.tasks.add(ending)
            ending.add_done_callback(self.tasks.discard)
        return ending

    async def refund(self, admission: Admission, units: Mapping[str, int], snapshot: ConfigSnapshot) -> None:
        """Return all that an admission has reserved: no call was made."""
        ending = []
        if admission.lease:
            ending.append(self.settle(Lease(admission.lease, UNUSED, admission.expires_in), snapshot))
        if admission.reservation:
            ending.append(self.close(admission, dict.fromkeys([*units, "requests"], 0), UNUSED, snapshot))
        if ending:
            await asyncio.wait(ending)

    @staticmethod
    def _request(
        call: Call, snapshot: ConfigSnapshot, token: str, without: str = "", limits: tuple[Limit, ...] = ()
    ) -> AdmitRequest:
        spec = snapshot.pools.get(call.pool.spec.name, call.pool).spec
        fallbacks = tuple(
            found.spec
            for name in spec.fallback
            if (found := snapshot.pools.get(name)) is not None and found.is_open_to(call.project)
        )
        return AdmitRequest(
            pool=spec, fallbacks=fallbacks, token=token, cost=call.cost, priority=call.wishes.priority, key=call.key,
            model=call.model, without=without, limits=limits,
        )  # fmt: skip

    async def _ask(self, renewed: Renewed, snapshot: ConfigSnapshot, progress: Progress, wait: float) -> Admission:
        token = random_id()
        asking = _Asking(self, renewed, renewed(snapshot, token), snapshot, progress, token)
        if not wait:
            return await asking.once()
        await self.checks.waiting_checks().check(asking, max_wait=wait)
        assert asking.last is not None
        return asking.last


@dataclass(slots=True)
class _Asking:
    """The admissions of one call that waits: a queue of waiting checks calls it instead of the limiter."""

    admissions: Admissions
    renewed: Renewed
    request: AdmitRequest
    snapshot: ConfigSnapshot
    progress: Progress
    token: str
    last: Admission | None = field(default=None)

    @property
    def limits(self) -> Sequence[Limit]:
        """What the call may wait for, each with a queue of its own: limits, and the pools."""
        assert self.request.pool is not None
        return [*self.request.limits, *map(_queue_of, (self.request.pool, *self.request.fallbacks))]

    async def once(self) -> Admission:
        """Admit now; where Redis has just stopped answering, as soon as it answers again within `PATIENCE`."""
        deadline = time.monotonic() + PATIENCE
        lost: LimiterUnavailable | None = None
        while True:
            try:
                return await self.admissions.engine.admit_or_undo(self.request, self._undo)
            except LimiterUnavailable as error:
                if not isinstance(error, NotAsked):
                    lost = error
                if time.monotonic() >= deadline or limiter().breaker.seconds_open() >= PATIENCE:
                    self.lost(lost or error)
                    raise
                self.progress.delayed_by("redis")
                await asyncio.sleep(SERVER_PAUSE)

    async def _undo(self, asked: Awaitable[Admission]) -> None:
        try:
            admission = await asked
        except LimiterUnavailable as error:
            self.lost(error)
            return
        if admission.allowed:
            await self.admissions.refund(admission, self.request.cost, self.snapshot)

    async def check(self, *, dry_run: bool) -> Decision:
        self.request = self.renewed(await self.admissions.checks.configuration(), self.token)
        try:
            if dry_run:
                explained = await self.admissions.threads.waiting(lambda: accounts().explain(self.request))
                self.last = explained.admission
                self.progress.delayed_by("earlier calls")
            else:
                self.last = await self.admissions.engine.admit(self.request)
        except LimiterUnavailable:
            self.progress.delayed_by("redis")
            raise
        if not self.last.allowed:
            self.progress.delayed_by(_reason_of(self.last))
        return _decision(self.last)

    def lost(self, error: LimiterUnavailable) -> None:
        unanswered.return_admission(self.request, error)

    async def refund(self, decision: Decision) -> None:
        if self.last is not None and self.last.allowed:
            await self.admissions.refund(self.last, self.request.cost, self.snapshot)


def _reason_of(admission: Admission) -> str:
    """What denies an admission, in a few words."""
    if admission.bound_by == "limit":
        return f"policy {admission.binding}"
    return f"pool {admission.pool}: {', '.join(sorted(admission.reasons))}"


def _decision(admission: Admission) -> Decision:
    return Decision(
        allowed=admission.allowed, limits=admission.limits, retry_after=admission.retry_after,
        binding=admission.binding, reservation=admission.reservation,
        impossible=admission.impossible or admission.disabled,
    )  # fmt: skip


def _queue_of(pool: PoolSpec) -> Limit:
    """The queue of calls that wait for a pool, as a limit that counts nothing and only has a name and a key."""
    return Limit(
        id=f"w{pool.id}", name=pool.name, scope="global", subject="*", algorithm="fixed_window", limit=1, window=60.0
    )


async def drained(admissions: Admissions, seconds: float) -> None:
    """Wait for what is still to be settled."""
    if admissions.tasks:
        await asyncio.wait(set(admissions.tasks), timeout=seconds)
