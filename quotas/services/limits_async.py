"""Checks on an event loop: `limits.check` without SQL and without a thread that waits, for Redis or for capacity."""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from quotas.engine.errors import LimiterUnavailable, NotAsked
from quotas.engine.ids import random_id
from quotas.engine.limits.fallback import ResilientLimiter
from quotas.engine.limits.requests import CheckRequest, wants_reservation
from quotas.engine.limits.waiting_async import AsyncWaitingChecks
from quotas.engine.redis import pipeline as pipelined
from quotas.engine.redis.pipeline import InThread, Pipeline, PlainSocketNeeded
from quotas.engine.redis.scripts import Call
from quotas.engine.types import Decision, Limit
from quotas.runtime.connection import limiter
from quotas.runtime.threads import in_thread
from quotas.services import limits, unanswered
from quotas.services.limits import Check, Token
from quotas.snapshot import resolve
from quotas.snapshot.config import configuration
from quotas.snapshot.freshness import LOOK_EVERY

T = TypeVar("T")


class CallerGone(Exception):
    """The caller went away before its answer: nothing is charged."""


class AsyncChecks:
    """The limiter for one event loop. `in_thread` runs short calls, `waiting` runs calls of callers that wait."""

    def __init__(self, in_thread: InThread, waiting: InThread) -> None:
        self._in_thread = in_thread
        self._waiting = waiting
        self._limiter: ResilientLimiter | None = None
        self._pipeline: Pipeline | None = None
        self._waiting_checks: AsyncWaitingChecks | None = None
        self.threads_only = False

    async def check(
        self,
        question: Check,
        snapshot: resolve.ConfigSnapshot,
        *,
        actor: str,
        token: Token,
        gone: asyncio.Future[Any] | None = None,
    ) -> Decision:
        """Decide, and charge all limits or none; `snapshot` is the configuration to decide by.

        `gone` is done when the caller has disconnected: a waiting check then leaves its queue and raises `CallerGone`.
        Raises what `limits.check` raises. Checks that must be audited, and all checks while Redis is
        unavailable, run `limits.check` itself in a thread.
        """
        if question.bypass:
            return await self._in_thread(lambda: limits.check(question, actor=actor, token=token))
        began = time.perf_counter()
        applying = question.limits(snapshot)
        if question.max_wait and not question.dry_run:
            asking = _Asking(self, question, applying, token)
            waiting = self.waiting_checks().check(asking, max_wait=question.max_wait)
            decision = asking.answer(await unless_gone(waiting, gone, asking))
        else:
            decision = await self.decide(
                CheckRequest(applying, question.dry_run, False, token.key, token.body), self._in_thread
            )
        limits.emit_decision(question, decision, time.perf_counter() - began)
        return decision

    async def decide(self, request: CheckRequest, in_thread: InThread) -> Decision:
        """Check once. Raises what `Limiter.check` raises."""
        limiter_now = limiter()
        self._connected(limiter_now)
        if not self.threads_only and not limiter_now.breaker.is_open:
            assert self._pipeline is not None
            try:
                return await pipelined.check(limiter_now.limiter, self._pipeline, request)
            except PlainSocketNeeded:
                self.threads_only = True
            except LimiterUnavailable as error:
                why = str(error)
                return await in_thread(lambda: limiter_now.unanswered(request, why))
        (decision,) = await in_thread(lambda: limiter_now.check_many([request]))
        if isinstance(decision, LimiterUnavailable):
            raise decision
        return decision

    async def ask(self, over: Callable[[Pipeline], Awaitable[T]], instead: Callable[[], T]) -> T:
        """Call `over` with the loop's connection or, where that can't be, `instead` in a thread. Raises what both raise,
        and `NotAsked`, at once, while the server does not answer."""
        limiter_now = limiter()
        self._connected(limiter_now)
        breaker = limiter_now.breaker
        if breaker.is_open and not (breaker.is_probe_due and await self._in_thread(breaker.allows)):
            raise NotAsked
        try:
            if not self.threads_only:
                assert self._pipeline is not None
                try:
                    return await over(self._pipeline)
                except PlainSocketNeeded:
                    self.threads_only = True
            found: T = await self._in_thread(instead)
            return found
        except LimiterUnavailable as error:
            breaker.failed(str(error))
            raise

    def pipeline(self) -> Pipeline | None:
        """The loop's open connection to a server that answers; None where there is none."""
        limiter_now = limiter()
        self._connected(limiter_now)
        found = self._pipeline
        if found is None or self.threads_only or limiter_now.breaker.is_open or not found.is_open:
            return None
        return found

    async def configuration(self) -> resolve.ConfigSnapshot:
        """The configuration in force, without a thread where this process's copy is recent."""
        known, age = configuration.peek()
        return known if known is not None and age < LOOK_EVERY else await self._waiting(resolve.snapshot)

    async def refund(self, decision: Decision) -> None:
        """Refund all that an allowed decision has charged."""
        reservation = decision.reservation
        if reservation is not None:
            nothing = {state.unit: 0 for state in decision.limits}
            await self._waiting(lambda: limits.settle_or_later(reservation, nothing))

    def waiting(self) -> int:
        """How many calls of this process wait for capacity."""
        return self._waiting_checks.waiting() if self._waiting_checks is not None else 0

    def waiting_checks(self) -> AsyncWaitingChecks:
        """The checks that wait on this loop, also for admissions of the gateway."""
        return self._connected(limiter())

    def _connected(self, limiter_now: ResilientLimiter) -> AsyncWaitingChecks:
        """The checks that wait, after the connection to this limiter was opened."""
        if self._limiter is not limiter_now or self._pipeline is None or self._waiting_checks is None:
            self.close()
            self._limiter = limiter_now
            self._pipeline = Pipeline(limiter_now.limiter.transport, self._in_thread)
            self._waiting_checks = AsyncWaitingChecks(_Connection(self), limiter_now.limiter.keys)
        return self._waiting_checks

    def close(self) -> None:
        if self._pipeline is not None:
            self._pipeline.close()
            self._pipeline = self._waiting_checks = None


class _Connection:
    """How a queue of waiters reaches the server: over the pipeline, or in threads where a pipeline is impossible."""

    def __init__(self, checks: AsyncChecks) -> None:
        self._checks = checks

    async def run(self, call: Call) -> Any:
        return await self._either(
            lambda pipeline: pipeline.run(call), lambda limiter: limiter.ask(lambda transport: transport.send(call))
        )

    async def send(self, commands: Sequence[bytes]) -> list[Any]:
        joined = b"".join(commands)
        return await self._either(
            lambda pipeline: pipeline.send(commands),
            lambda limiter: limiter.ask(lambda transport: transport.exchange(joined, len(commands))),
        )

    async def listen(self, key: bytes, seconds: float) -> bool:
        pipeline = self._checks._pipeline
        if self._checks.threads_only or pipeline is None:
            return False
        return await pipeline.listen(key, seconds)

    async def _either(self, over: Callable[[Pipeline], Awaitable[T]], asked: Callable[[ResilientLimiter], T]) -> T:
        checks = self._checks
        pipeline, limiter_now = checks._pipeline, checks._limiter
        if limiter_now is None:
            raise LimiterUnavailable("closed")
        if not checks.threads_only and pipeline is not None:
            try:
                return await over(pipeline)
            except PlainSocketNeeded:
                checks.threads_only = True
        return await checks._waiting(lambda: asked(limiter_now))


@dataclass(slots=True)
class _Asking:
    """The questions of one check that waits, each by the limits that are in force then.

    Each makes a reservation, so that what was charged can be refunded where the caller is gone. With a token it
    is not refunded: the caller may come back with the same token, and is answered by what was charged.
    """

    checks: AsyncChecks
    question: Check
    limits: Sequence[Limit]
    token: Token
    reserve: bool | None = None
    own: str = field(default_factory=random_id)
    """The token of its questions, where the caller has given none."""

    async def check(self, *, dry_run: bool) -> Decision:
        self.limits = self.question.limits(await self.checks.configuration())
        reserve = self.reserve if self.token.key or dry_run else True
        request = CheckRequest(self.limits, dry_run, False, self.token.key or self.own, self.token.body, reserve)
        return await self.checks.decide(request, self.checks._waiting)

    async def refund(self, decision: Decision) -> None:
        if not self.token.key:
            await self.checks.refund(decision)

    def lost(self, error: LimiterUnavailable) -> None:
        if not self.token.key:
            unanswered.return_check(self.question.limits, self.own, error)

    def answer(self, decision: Decision) -> Decision:
        """The decision with its reservation only where its caller has to settle it."""
        wanted = wants_reservation(self.limits) if self.reserve is None else self.reserve
        return decision if wanted or self.token.key else replace(decision, reservation=None)


async def unless_gone(
    work: Coroutine[Any, Any, Decision], gone: asyncio.Future[Any] | None, asking: _Asking
) -> Decision:
    """The result of `work`; where `gone` is done first, `work` is cancelled and `CallerGone` is raised."""
    if gone is None:
        return await work
    working = asyncio.ensure_future(work)
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        working.cancel()
        raise
    if not gone.done():
        return working.result()
    if not working.done():
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
    elif working.exception() is None and working.result().allowed:
        await asking.refund(working.result())
    raise CallerGone


_of_loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncChecks] = weakref.WeakKeyDictionary()


async def check_waiting(question: Check, *, reserve: bool | None = None) -> Decision:
    """`limits.check` of a question with `max_wait`, for coroutines of any loop. Cancelled, it charges nothing."""
    loop = asyncio.get_running_loop()
    checks = _of_loops.get(loop)
    if checks is None:
        checks = _of_loops[loop] = AsyncChecks(_short, _patient)
        checks.threads_only = True  # a connection would outlive its loop: nothing closes it
    began = time.perf_counter()
    applying = await in_thread(question.limits)
    asking = _Asking(checks, question, applying, Token(), reserve)
    decision = asking.answer(await checks.waiting_checks().check(asking, max_wait=question.max_wait))
    limits.emit_decision(question, decision, time.perf_counter() - began)
    return decision


async def _short(work: Any) -> Any:
    return await in_thread(work)


async def _patient(work: Any) -> Any:
    return await in_thread(work, waits=True)
