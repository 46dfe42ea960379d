"""`/gateway/{pool}/{path}`: reads the caller and the call, and answers what can't be done."""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import dataclass
from itertools import count

import structlog
from django.conf import settings

from controlplane.gateway import deferral, fields
from controlplane.gateway.admission import Admissions, drained
from controlplane.gateway.arrival import call_of, caller_of, dialect_by, length_of
from controlplane.gateway.attempt import Broken
from controlplane.gateway.body import Body
from controlplane.gateway.call import Call
from controlplane.gateway.exchange import Exchange, NotNow
from controlplane.gateway.progress import Progress
from controlplane.gateway.refusals import answer_of
from controlplane.gateway.target import target_of
from controlplane.gateway.upstream import Upstream
from controlplane.gateway.watch import Watch
from controlplane.http.hot_cache import HotCache
from controlplane.http.request import Disconnected, Receive, Scope, Send
from controlplane.http.threads import Threads
from controlplane.observability import call_counts
from quotas import events
from quotas.engine.errors import LimiterUnavailable
from quotas.errors import NetworkDenied, UnknownProject
from quotas.rest import decisions, problems
from quotas.rest.caller import Caller
from quotas.rest.problems import ProblemError
from quotas.services.limits_async import AsyncChecks
from quotas.snapshot.addresses import BadAddress
from quotas.snapshot.config import ConfigSnapshot

log = structlog.get_logger(__name__)
SETTLING = 3.0
"""Seconds in which what is still to be settled may be so, when the process ends."""


class Gateway:
    """Answers calls through pools, for one event loop."""

    def __init__(self, threads: Threads, known: HotCache, checks: AsyncChecks) -> None:
        self._threads = threads
        self._known = known
        self._admissions = Admissions(threads, checks)
        self._upstream = Upstream()
        self._name = secrets.token_hex(8)
        self._numbers = count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        progress = Progress(time.perf_counter())
        body = Body(receive, settings.GATEWAY_MAX_BODY)
        asked = _Asked()
        call_counts.streams.began()
        try:
            await self._serve(scope, send, body, progress, asked)
        except Unreadable as error:
            await self._refuse(error, asked, progress, send)
        except (Disconnected, asyncio.CancelledError) as gone:
            if progress.outcome in ("", "ok", "unknown"):  # an error that the provider has streamed comes first
                progress.outcome = "cancelled"
            if not isinstance(gone, Disconnected):
                raise
        except Broken:
            progress.outcome = "broken"
            raise  # the server closes the connection without a proper end
        except Exception as error:
            if progress.started:
                progress.outcome = "broken"
                raise
            await self._refuse(error, asked, progress, send)
        finally:
            call_counts.streams.ended()
            if asked.call is not None:
                events.emit(progress.event(asked.call))

    async def _serve(self, scope: Scope, send: Send, body: Body, progress: Progress, asked: _Asked) -> None:
        given = fields.single(scope["headers"])
        asked.dialect = dialect_by(given)
        if call_counts.streams.open > settings.GATEWAY_MAX_CALLS:
            raise _too_many()
        target = target_of(scope)
        snapshot = await self._known.configuration()
        if target.pool in snapshot.pools:
            asked.pool = target.pool
            asked.dialect = snapshot.pools[target.pool].provider.dialect
        token, caller = await caller_of(given, target, self._known)
        name = f"{self._name}{next(self._numbers):08x}"
        call = call_of(name, scope, given, target, body, caller=caller, token=token, snapshot=snapshot)
        asked.call = call
        with Watch(body, progress, is_reading=True) as watch:
            try:
                await body.begin(length_of(given))
            except Disconnected:
                raise Unreadable from None
            watch.is_reading = False
            call.read_body(snapshot)
            # What was read of the head is not kept for as long as the answer takes.
            given.clear()
            scope["headers"] = []
            if not call.wishes.may_defer:
                await Exchange(call, snapshot, self._admissions, self._upstream, progress).run(send)
                return
        await self._or_job(call, caller, snapshot, progress, send)

    async def _or_job(
        self, call: Call, caller: Caller, snapshot: ConfigSnapshot, progress: Progress, send: Send
    ) -> None:
        """Make the call or, where it can't be made now, a job of it."""
        if call.project is None:
            raise ProblemError(
                "invalid-request",
                "Invalid request",
                400,
                "Prefer: respond-async needs a project: name it by Sluice-Project.",
            )
        answer = await self._threads.short(lambda: deferral.known(call, caller))
        if answer is None:
            exchange = Exchange(call, snapshot, self._admissions, self._upstream, progress)
            try:
                with Watch(call.body, progress):
                    await exchange.run(send)
                return
            except NotNow as refused:
                problem = refused.problem
            answer = await self._threads.short(lambda: deferral.submitted(call, caller, problem))
        progress.answered, progress.outcome = answer.status, "queued"
        await answer.send(send)

    async def _refuse(self, error: Exception, asked: _Asked, progress: Progress, send: Send) -> None:
        problem = error.problem if isinstance(error, NotNow) else _problem(error)
        progress.refused(problem)
        answer = answer_of(problem, asked.dialect)
        if asked.call is not None:
            own = {
                "Sluice-Request-Id": asked.call.id, "Sluice-Attempts": str(progress.attempts),
                "Sluice-Waited": f"{progress.waited:.6f}",
            }  # fmt: skip
            answer.headers = [*answer.headers, *own.items()]
        else:
            events.emit(events.CallRejected(asked.pool, problem.slug))
        await answer.send(send)

    async def close(self) -> None:
        await drained(self._admissions, SETTLING)
        await self._upstream.close()


class Unreadable(Exception):
    """The body ended before its end: its caller is gone, or has sent it with invalid framing."""


@dataclass(slots=True)
class _Asked:
    """What is known of a request so far."""

    dialect: str = ""
    pool: str = ""
    call: Call | None = None


def _too_many() -> ProblemError:
    return ProblemError(
        "too-many-calls", "Too many calls", 503, "This process has as many calls in progress as it may; try again.",
        headers={"Retry-After": "1"}, retry_after=1.0,
    )  # fmt: skip


def _problem(error: Exception) -> ProblemError:
    if isinstance(error, UnknownProject | NetworkDenied | LimiterUnavailable):
        return decisions.refusal(error)
    if isinstance(error, Unreadable):
        return ProblemError("invalid-request", "Invalid request", 400, "The body can't be read to its end.")
    if isinstance(error, BadAddress):
        return ProblemError("invalid-request", "Invalid request", 400, str(error))
    found = problems.translate(error)
    if found.status >= 500 and not isinstance(error, ProblemError):
        log.error("gateway.fault", exc_info=error)
    return found
