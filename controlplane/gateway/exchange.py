"""The life of an admitted call: sent with an account, with another one where that is safe, passed back, settled.

admission -> account -> provider ──> answer passes ──> account and caller are settled by what it used
                ^          │
                └── 429, refused credential, overloaded, not connected, or any failure that is safe to repeat
"""

from __future__ import annotations

import asyncio
import time
from math import inf
from typing import Any

from controlplane.gateway.admission import UNUSED, Admissions, Refused
from controlplane.gateway.answer import AnswerSender
from controlplane.gateway.attempt import NOT_EXECUTED, Attempt, Failure
from controlplane.gateway.call import Call
from controlplane.gateway.progress import Progress
from controlplane.gateway.refusals import of_admission
from controlplane.gateway.upstream import Upstream
from controlplane.http.request import Send
from quotas.engine.categories import Category
from quotas.engine.types import Admission
from quotas.rest.problems import ProblemError
from quotas.services.admissions_async import Lease
from quotas.snapshot.config import ConfigSnapshot


class NotNow(Exception):
    """The call can't be made now, and nothing of it was executed; `problem` says why."""

    def __init__(self, problem: ProblemError) -> None:
        super().__init__(problem.slug)
        self.problem = problem


class Exchange:
    """One call, from its admission to its settlement."""

    __slots__ = (
        "_admissions", "_call", "_deadline", "_first", "_snapshot", "_is_ended", "_last", "_open", "_progress", "_tried",
        "_upstream",
    )  # fmt: skip

    def __init__(
        self, call: Call, snapshot: ConfigSnapshot, admissions: Admissions, upstream: Upstream, progress: Progress
    ) -> None:
        self._call, self._snapshot = call, snapshot
        self._admissions, self._upstream = admissions, upstream
        self._progress = progress
        self._deadline = time.monotonic() + call.wishes.wait
        self._first: Admission | None = None
        self._tried: set[str] = set()
        self._open: Lease | None = None
        """The last account's lease, where it is still to be settled."""
        self._is_ended = False
        self._last = UNUSED
        """How the last try ended; until a provider was reached, the call was not made."""

    async def run(self, send: Send) -> None:
        """Raises `NotNow`, a problem for other refusals, and `Broken`. Cancelled, it settles by what was seen."""
        asked = time.perf_counter()
        try:
            admission = await self._admissions.first(self._call, self._snapshot, self._progress)
        except Refused as refused:
            raise self._refusal(refused.admission) from None
        finally:
            if self._progress.waited_for:  # else it was admitted at once, and its admission is overhead
                self._progress.waited = time.perf_counter() - asked
        self._first = admission
        sender = AnswerSender(self._call, self._progress, admission.limits, send)
        try:
            while True:
                turn = self._turn(admission)
                failure = await self._attempt(turn, sender)
                if failure is None:
                    return
                found = None if failure.is_final else await self._next(failure, turn)
                if found is None:
                    await self._pass_failure(failure, turn, sender)
                    return
                admission = found
        finally:
            self._end(linger=True)

    def _end(self, *, linger: bool = False) -> list[asyncio.Future[Any]]:
        """Settle what is still open, once for each call: the last account, and the caller by what was used.

        Both are sent to Redis together, and are settled to the end wherever the call itself is cancelled. `linger`: that
        is not urgent.
        """
        if self._is_ended or self._first is None:
            return []
        self._is_ended = True
        used = self._used()
        self._progress.actual = {**used, **self._progress.actual}
        admissions, snapshot = self._admissions, self._snapshot
        ending = []
        if self._open is not None:
            ending.append(admissions.settle(self._open, snapshot, linger=linger))
        if self._first.reservation:
            ending.append(admissions.close(self._first, used, self._last, snapshot, linger=linger))
        return ending

    async def _end_first(self, turn: Attempt) -> None:
        """Settle before the caller has the whole answer, where the call has a slot: its next call must find it free."""
        assert self._first is not None
        has_slot = turn.config.spec.concurrency is not None or any(
            limit.algorithm == "concurrency" for limit in self._first.limits
        )
        ending = self._end() if has_slot else []
        if ending:
            await asyncio.wait(ending)

    # -- one try -------------------------------------------------------------------------------------------------

    def _turn(self, admission: Admission) -> Attempt:
        name = admission.pool or self._call.pool.spec.name
        config = self._snapshot.pools.get(name, self._call.pool)
        self._progress.attempts += 1
        self._progress.account = admission.account or ""
        self._tried.add(admission.account_id or "")
        return Attempt(self._call, admission, config, self._upstream, self._progress)

    async def _attempt(self, turn: Attempt, sender: AnswerSender) -> Failure | None:
        """Send the call once. Returns the failure; None if the answer was passed on."""

        async def ended() -> None:
            self._last = turn.outcome
            self._open = self._lease_of(turn)
            await self._end_first(turn)

        try:
            failure = await turn.send()
            if failure is None:
                await turn.pass_on(sender, ended)
            return failure
        finally:
            self._last = turn.outcome if turn.is_made else UNUSED
            self._progress.ends_by = inf
            turn.close()
            self._open = self._lease_of(turn)
            if self._open is not None and turn.is_error:
                # The account cools down before another one is chosen.
                settling = self._admissions.settle(self._open, self._snapshot)
                self._open = None
                await asyncio.wait([settling])

    def _lease_of(self, turn: Attempt) -> Lease | None:
        """What is still to be settled of a try; None where that was done."""
        lease = turn.admission.lease
        return None if lease is None or self._is_ended else Lease(lease, turn.outcome, turn.admission.expires_in)

    # -- another account -----------------------------------------------------------------------------------------

    async def _next(self, failure: Failure, turn: Attempt) -> Admission | None:
        """Another account; None where the failure stands. Raises a problem where only waiting would help."""
        call = self._call
        if self._progress.attempts >= call.pool.tries or not call.body.is_whole:
            return None
        left = max(0.0, self._deadline - time.monotonic()) if call.wishes.wait else 0.0
        asked = time.perf_counter()
        try:
            refused_by = turn.admission.account_id or ""
            found = await self._admissions.another(call, self._snapshot, self._progress, refused_by, left)
        except Refused as refused:
            if failure.waits:
                raise self._refusal(refused.admission) from None
            return None
        finally:
            if left:
                self._progress.waited += time.perf_counter() - asked
        if found.account_id in self._tried and not failure.waits:
            await self._admissions.refund(found, {}, self._snapshot)
            return None
        return found

    def _refusal(self, admission: Admission) -> Exception:
        problem = of_admission(admission, self._call.target.pool, self._call.project)
        return problem if admission.impossible else NotNow(problem)

    def _used(self) -> dict[str, int]:
        """What the caller is charged: nothing where no account did the call, the request where it was answered by an
        error, what was used where that is known, and else what was reserved."""
        last, units = self._last, self._call.cost
        if last == UNUSED or Category.of(last.category).refuses_caller or last.status in NOT_EXECUTED:
            return dict.fromkeys([*units, "requests"], 0)
        if last.status is not None and last.status >= 400:
            return {**dict.fromkeys(units.keys() - {"requests"}, 0), **last.usage}
        return dict(last.usage)

    async def _pass_failure(self, failure: Failure, turn: Attempt, sender: AnswerSender) -> None:
        self._progress.outcome = failure.outcome.category
        if failure.answer is None:
            assert failure.problem is not None
            raise failure.problem
        if failure.waits and self._call.wishes.may_defer:
            raise NotNow(
                ProblemError("no-account-available", "No account available", 429, "Each account refused the call.")
            )
        await self._end_first(turn)
        await sender.error(*failure.answer)
