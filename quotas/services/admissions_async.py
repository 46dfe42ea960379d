"""Admissions and settlements on an event loop: those of `accounts` and `limits`, without SQL and without a thread.

Where the loop's connection is open, a script is sent at once and what follows is done when its reply comes, without a task.
A thread is taken only for what follows from a call and blocks (events that are written to SQL, accounts that share a
credential), and for a Redis that is reached by TLS or as a cluster.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from quotas.engine.accounts.outcome import settled as settled_by
from quotas.engine.errors import LimiterUnavailable
from quotas.engine.redis.pipeline import InThread, KeptReply, Pipeline
from quotas.engine.redis.scripts import Call, pack
from quotas.engine.redis.transport import Reply, ScriptError
from quotas.engine.types import Admission, AdmitRequest, CallOutcome, Settled, Settlement
from quotas.runtime.connection import accounts, limiter
from quotas.services import account_changes, deferred_settlement, limits, outcomes
from quotas.services import accounts as pools
from quotas.services.limits_async import AsyncChecks
from quotas.snapshot.config import ConfigSnapshot

T = TypeVar("T")
Asked = Call | tuple[Any, ...]
"""A script, or a command with its arguments."""
Rounds = Generator[list[Call], list[Any], list[Admission]]
Background = Callable[[Coroutine[Any, Any, Any]], asyncio.Future[Any]]
"""Runs a coroutine to its end, whatever becomes of its caller."""


@dataclass(slots=True)
class Lease:
    """An account's lease that is to be settled, with all that settling it takes."""

    name: str
    outcome: CallOutcome
    life: float
    """Seconds after which it is of no use to repeat the settlement."""

    @property
    def title(self) -> str:
        return f"lease {self.name[:6]}.."


class AsyncAdmissions:
    """One event loop's access to the engine. `in_thread` runs what ends soon."""

    def __init__(self, checks: AsyncChecks, in_thread: InThread, background: Background) -> None:
        self._checks = checks
        self._in_thread = in_thread
        self._background = background

    # -- admitting -----------------------------------------------------------------------------------------------

    async def admit_or_undo(
        self, request: AdmitRequest, undo: Callable[[Awaitable[Admission]], Coroutine[Any, Any, None]]
    ) -> Admission:
        """As `admit`. Cancelled, it has `undo` run in the background with what leads to the answer."""
        pipeline = self._checks.pipeline()
        if pipeline is None:
            return await self._or_undo(self.admit(request), undo)
        rounds = accounts().admitting([request])
        (call,) = next(rounds)
        reply = pipeline.start(call)
        try:
            await reply
        except LimiterUnavailable:
            pass  # raised below, with the lease that may have been made
        except asyncio.CancelledError:
            self._background(undo(self._after(request, rounds, reply)))
            raise
        found = self._found(rounds, reply)
        if isinstance(found, Admission) and not self._has_sequel(request, found):
            return found
        return await self._or_undo(self._whole(request, rounds, found), undo)

    async def _or_undo(
        self, work: Coroutine[Any, Any, Admission], undo: Callable[[Awaitable[Admission]], Coroutine[Any, Any, None]]
    ) -> Admission:
        asked = asyncio.ensure_future(work)
        try:
            return await asyncio.shield(asked)
        except asyncio.CancelledError:
            self._background(undo(asked))
            raise

    async def _after(self, request: AdmitRequest, rounds: Rounds, reply: KeptReply) -> Admission:
        return await self._whole(request, rounds, self._found(rounds, reply))

    @staticmethod
    def _found(rounds: Rounds, reply: KeptReply) -> Admission | list[Call]:
        """What the reply to the first script says, or the scripts of the next round: none where the first one was not run.
        Raises `LimiterUnavailable`."""
        error = reply.exception()
        if error is not None:
            assert isinstance(error, LimiterUnavailable)
            limiter().breaker.failed(str(error))
            rounds.throw(error)
        found = reply.result()
        if type(found) is ScriptError:
            return []
        try:
            return rounds.send([found])
        except StopIteration as end:
            admission: Admission = end.value[0]
            return admission

    async def _whole(self, request: AdmitRequest, rounds: Rounds, found: Admission | list[Call]) -> Admission:
        """The answer with all that follows."""
        if isinstance(found, Admission):
            return await self._with_sequel(request, found)
        if not found:
            return await self.admit(request)

        async def over(pipeline: Pipeline) -> Admission:
            (admission,) = await _many(pipeline, rounds, found)
            return await self._with_sequel(request, admission)

        return await self._checks.ask(over, lambda: pools.admit(request))

    @staticmethod
    def _has_sequel(request: AdmitRequest, admission: Admission) -> bool:
        return admission.half_opened or bool(request.without and (admission.disabled or admission.impossible))

    async def _with_sequel(self, request: AdmitRequest, admission: Admission) -> Admission:
        if request.without and (admission.disabled or admission.impossible):
            found: Admission = await self._in_thread(lambda: pools.admit(request))
            return found
        if admission.half_opened:
            await self._in_thread(lambda: account_changes.publish_admitted((admission,)))
        return admission

    async def admit(self, request: AdmitRequest) -> Admission:
        """As `accounts.admit`. Raises `LimiterUnavailable`."""

        async def over(pipeline: Pipeline) -> Admission:
            (admission,) = await _many(pipeline, accounts().admitting([request]))
            return await self._with_sequel(request, admission)

        return await self._checks.ask(over, lambda: pools.admit(request))

    # -- settling ------------------------------------------------------------------------------------------------

    def start_settling(self, lease: Lease, config: ConfigSnapshot, *, linger: bool = False) -> asyncio.Future[Any]:
        """As `settle`, in the background; the future is done when Redis has answered. `linger`: it is not urgent."""
        pipeline = self._checks.pipeline()
        call = None if pipeline is None else accounts().settle_call(lease.name, lease.outcome)
        if pipeline is None or call is None:
            return self._background(self.settle(lease, config))
        reply = pipeline.start(call, linger=linger)
        reply.add_done_callback(partial(self._settled, lease, config))
        return reply

    def _settled(self, lease: Lease, config: ConfigSnapshot, reply: asyncio.Future[Reply]) -> None:
        error = reply.exception()
        if error is not None:
            limiter().breaker.failed(str(error))
            self._settle_later(lease, error)
        elif type(found := reply.result()) is ScriptError:  # it was not run
            self._background(self.settle(lease, config))
        elif found is not None:
            settled = settled_by(lease.name, lease.outcome, found)
            if not pools.nothing_follows(settled, lease.outcome, config):
                self._background(self._follow_up(lease, settled))

    async def settle(self, lease: Lease, config: ConfigSnapshot) -> None:
        """Report how a call went to its account; later, where Redis does not answer. Never raises."""

        async def over(pipeline: Pipeline) -> Settled | None:
            return await _one(pipeline, accounts().settling(lease.name, lease.outcome))

        def settle() -> Any:
            return deferred_settlement.settled(
                lease.title, lambda: pools.settle_outcome(lease.name, lease.outcome), life=lease.life
            )

        try:
            settled = await self._checks.ask(over, lambda: accounts().settle(lease.name, lease.outcome))
        except LimiterUnavailable as error:
            self._settle_later(lease, error)
            return
        except LookupError:  # of another process, or settled already
            await self._in_thread(settle)
            return
        if settled is not None and not pools.nothing_follows(settled, lease.outcome, config):
            await self._follow_up(lease, settled)

    @staticmethod
    def _settle_later(lease: Lease, error: BaseException) -> None:
        repeated = partial(pools.settle_outcome, lease.name, lease.outcome)
        deferred_settlement.late.repeat(lease.title, repeated, str(error), life=lease.life)

    async def _follow_up(self, lease: Lease, settled: Settled) -> None:
        await self._in_thread(
            lambda: deferred_settlement.settled(lease.title, lambda: pools.follow_up([(settled, lease.outcome)]))
        )

    def start_closing(
        self,
        admission: Admission,
        actual: Mapping[str, int],
        outcome: CallOutcome,
        config: ConfigSnapshot,
        *,
        linger: bool = False,
    ) -> asyncio.Future[Any]:
        """As `close`, in the background; the future is done when Redis has answered. `linger`: it is not urgent."""
        reservation, reserved = admission.reservation, admission.reserved
        pipeline = self._checks.pipeline() if reserved and not config.adaptive else None
        if pipeline is None or reservation is None:
            return self._background(self.close(admission, actual, outcome, config))
        reply = pipeline.start(limiter().limiter.settle_call(reservation, actual, reserved), linger=linger)

        def closed(reply: asyncio.Future[Reply]) -> None:
            error = reply.exception()
            if error is not None:
                limiter().breaker.failed(str(error))
                self._close_later(reservation, actual, error)
            elif type(reply.result()) is ScriptError:  # it was not run
                self._background(self.close(admission, actual, outcome, config))

        reply.add_done_callback(closed)
        return reply

    async def close(
        self, admission: Admission, actual: Mapping[str, int], outcome: CallOutcome, config: ConfigSnapshot
    ) -> None:
        """Replace what the caller was charged by what was used; later, where Redis does not answer. Never raises."""
        reservation, reserved = admission.reservation, admission.reserved
        if reservation is None:
            return

        async def over(pipeline: Pipeline) -> Settlement | None:
            engine = limiter().limiter
            if reserved and not config.adaptive:  # its result is not used
                await pipeline.run(engine.settle_call(reservation, actual, reserved))
                return None
            return await _one(pipeline, engine.settling(reservation, actual, reserved))

        try:
            settled = await self._checks.ask(over, lambda: limiter().settle(reservation, actual))
        except LimiterUnavailable as error:
            self._close_later(reservation, actual, error)
            return
        if config.adaptive and settled is not None and not settled.repeated:
            await self._in_thread(lambda: outcomes.of_reservation(settled.limits, outcome))

    @staticmethod
    def _close_later(reservation: str, actual: Mapping[str, int], error: BaseException) -> None:
        repeated = partial(limits.settle_or_later, reservation, actual)
        deferred_settlement.late.repeat(f"reservation {reservation[:6]}..", repeated, str(error))


async def _many(pipeline: Pipeline, rounds: Rounds, first: list[Call] | None = None) -> list[Admission]:
    """The end of the rounds; `first`: what they have yielded last."""
    try:
        calls = first or next(rounds)
        while True:
            try:
                if len(calls) == 1:
                    replies = [await pipeline.run(calls[0])]
                else:
                    replies = await asyncio.gather(*[pipeline.run(call) for call in calls])
            except LimiterUnavailable as error:
                rounds.throw(error)
            calls = rounds.send(replies)
    except StopIteration as end:
        admissions: list[Admission] = end.value
        return admissions


async def _one(pipeline: Pipeline, steps: Generator[Asked, Any, T]) -> T:
    try:
        asked = next(steps)
        while True:
            if isinstance(asked, Call):
                reply = await pipeline.run(asked)
            else:
                (reply,) = await pipeline.send([pack(asked)])
            asked = steps.send(reply)
    except StopIteration as end:
        found: T = end.value
        return found
