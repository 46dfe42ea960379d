"""Checks on an event loop: `limits.check` without SQL and without a thread that waits for Redis."""

from __future__ import annotations

import time

from quotas import policies
from quotas.connection import limiter
from quotas.engine import pipelined
from quotas.engine.errors import LimiterUnavailable
from quotas.engine.fallback import ResilientLimiter
from quotas.engine.limiter import CheckRequest
from quotas.engine.pipelined import InThread, Pipeline, PlainSocketNeeded
from quotas.engine.types import Decision
from quotas.services import limits
from quotas.services.limits import Check, Token


class AsyncChecks:
    """One loop's way to the limiter. `in_thread` runs what ends soon, `waiting` what may take its caller's time."""

    def __init__(self, in_thread: InThread, waiting: InThread) -> None:
        self._in_thread = in_thread
        self._waiting = waiting
        self._limiter: ResilientLimiter | None = None
        self._pipeline: Pipeline | None = None
        self._threads_only = False

    async def check(self, question: Check, held: policies.Snapshot, *, actor: str, token: Token) -> Decision:
        """Decide, and charge all limits or none; `held` is the configuration to decide by.

        Raises what `limits.check` raises. What has to wait or to be audited, and all that is asked while Redis is
        away, takes the way of `limits.check` itself, in a thread.
        """
        limiter_now = limiter()
        if question.bypass or question.max_wait or self._threads_only or limiter_now.breaker.is_open:
            in_thread = self._waiting if question.max_wait else self._in_thread
            return await in_thread(lambda: limits.check(question, actor=actor, token=token))
        began = time.perf_counter()
        request = CheckRequest(question.limits(held), question.dry_run, False, token.key, token.body)
        if self._limiter is not limiter_now or self._pipeline is None:
            self.close()
            self._limiter = limiter_now
            self._pipeline = Pipeline(limiter_now.limiter.transport, self._in_thread)
        try:
            decision = await pipelined.check(limiter_now.limiter, self._pipeline, request)
        except PlainSocketNeeded:
            self._threads_only = True
            return await self._in_thread(lambda: limits.check(question, actor=actor, token=token))
        except LimiterUnavailable as error:
            why = str(error)
            decision = await self._in_thread(lambda: limiter_now.unanswered(request, why))
        limits.told(question, decision, time.perf_counter() - began)
        return decision

    def close(self) -> None:
        if self._pipeline is not None:
            self._pipeline.close()
            self._pipeline = None
