"""Admissions and settlements on an event loop: those of `accounts` and `limits`, without SQL and without a thread.

A thread is taken only for what follows from a call and blocks (events that are written to SQL, accounts that share a
credential), and for a Redis that is reached by TLS or as a cluster.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Mapping
from typing import Any, TypeVar

from quotas.engine.errors import LimiterUnavailable
from quotas.engine.redis.pipeline import InThread, Pipeline
from quotas.engine.redis.scripts import Call, pack
from quotas.engine.types import Admission, AdmitRequest, CallOutcome, Settled, Settlement
from quotas.runtime.connection import accounts, limiter
from quotas.services import account_changes, deferred_settlement, limits, outcomes
from quotas.services import accounts as pools
from quotas.services.limits_async import AsyncChecks
from quotas.snapshot.config import ConfigSnapshot

T = TypeVar("T")
Asked = Call | tuple[Any, ...]
"""A script, or a command with its arguments."""


class AsyncAdmissions:
    """One event loop's access to the engine. `in_thread` runs what ends soon."""

    def __init__(self, checks: AsyncChecks, in_thread: InThread) -> None:
        self._checks = checks
        self._in_thread = in_thread

    async def admit(self, request: AdmitRequest) -> Admission:
        """As `accounts.admit`. Raises `LimiterUnavailable`."""

        async def over(pipeline: Pipeline) -> Admission:
            (admission,) = await _many(pipeline, accounts().admitting([request]))
            if request.without and (admission.disabled or admission.impossible):
                found: Admission = await self._in_thread(lambda: pools.admit(request))
                return found
            if admission.half_opened:
                await self._in_thread(lambda: account_changes.publish_admitted((admission,)))
            return admission

        return await self._checks.ask(over, lambda: pools.admit(request))

    async def settle(self, lease: str, outcome: CallOutcome, life: float, config: ConfigSnapshot) -> None:
        """Report how a call went to its account; later, where Redis does not answer. Never raises."""

        async def over(pipeline: Pipeline) -> Settled | None:
            return await _one(pipeline, accounts().settling(lease, outcome))

        what = f"lease {lease[:6]}.."

        def settle() -> Any:
            return deferred_settlement.settled(what, lambda: pools.settle_outcome(lease, outcome), life=life)

        try:
            settled = await self._checks.ask(over, lambda: accounts().settle(lease, outcome))
        except LimiterUnavailable as error:
            deferred_settlement.late.repeat(what, lambda: pools.settle_outcome(lease, outcome), str(error), life=life)
            return
        except LookupError:  # of another process, or settled already
            await self._in_thread(settle)
            return
        if settled is not None and not pools.nothing_follows(settled, outcome, config):
            await self._in_thread(
                lambda: deferred_settlement.settled(what, lambda: pools.follow_up([(settled, outcome)]))
            )

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
            deferred_settlement.late.repeat(
                f"reservation {reservation[:6]}..", lambda: limits.settle_or_later(reservation, actual), str(error)
            )
            return
        if config.adaptive and settled is not None and not settled.repeated:
            await self._in_thread(lambda: outcomes.of_reservation(settled.limits, outcome))


async def _many(pipeline: Pipeline, rounds: Generator[list[Call], list[Any], T]) -> T:
    try:
        calls = next(rounds)
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
        found: T = end.value
        return found


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
