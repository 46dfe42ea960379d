"""`/gateway/{pool}/{path}`: reads the caller and the call, and answers what can't be done."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from typing import Any

import structlog
from django.conf import settings
from django.http import HttpRequest

from controlplane.gateway import deferral, fields
from controlplane.gateway.admission import Admissions, drained
from controlplane.gateway.body import Body
from controlplane.gateway.call import Call
from controlplane.gateway.exchange import Broken, Exchange, NotNow
from controlplane.gateway.progress import Progress
from controlplane.gateway.refusals import answer_of
from controlplane.gateway.target import Target, target_of
from controlplane.gateway.upstream import Upstream
from controlplane.http.fast_path import is_ours
from controlplane.http.hot_cache import HotCache
from controlplane.http.request import Disconnected, Receive, Scope, Send
from controlplane.http.threads import Threads
from controlplane.observability import call_counts
from quotas import events
from quotas.engine.errors import LimiterUnavailable
from quotas.errors import NetworkDenied, UnknownProject
from quotas.rest import decisions, problems, scopes
from quotas.rest.authentication import REFUSED
from quotas.rest.caller import Caller
from quotas.rest.problems import NotFound, ProblemError
from quotas.services.limits_async import AsyncChecks
from quotas.snapshot.addresses import BadAddress
from quotas.snapshot.config import ConfigSnapshot
from quotas.web.identity import client_ip

log = structlog.get_logger(__name__)
MAX_KEY = 255
"""Characters of an idempotency key."""
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
        if call_counts.streams.open > settings.GATEWAY_MAX_CALLS:
            raise _too_many()
        given = fields.single(scope["headers"])
        asked.dialect = _dialect_by(given)
        target = target_of(scope)
        held = await self._known.configuration()
        if target.pool in held.pools:
            asked.pool = target.pool
            asked.dialect = held.pools[target.pool].provider.dialect
        caller, call = await self._call(scope, given, target, held, body)
        asked.call = call
        try:
            await body.begin(_length(given))
        except Disconnected:
            raise Unreadable from None
        call.read_body(held)
        if call.wishes.may_defer:
            await self._or_job(call, caller, held, progress, send)
        else:
            exchange = Exchange(call, held, self._admissions, self._upstream, progress)
            await _unless_gone(exchange.run(send), body)

    async def _or_job(self, call: Call, caller: Caller, held: ConfigSnapshot, progress: Progress, send: Send) -> None:
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
            exchange = Exchange(call, held, self._admissions, self._upstream, progress)
            try:
                await _unless_gone(exchange.run(send), call.body)
                return
            except NotNow as refused:
                problem = refused.problem
            answer = await self._threads.short(lambda: deferral.submitted(call, caller, problem))
        progress.answered, progress.outcome = answer.status, "queued"
        await answer.send(send)

    async def _call(
        self, scope: Scope, given: Mapping[bytes, bytes], target: Target, held: ConfigSnapshot, body: Body
    ) -> tuple[Caller, Call]:
        """Raises a problem for whatever is wrong with the request."""
        if not is_ours(given.get(b"host", b"").decode("latin-1")):
            raise ProblemError(
                "invalid-host", "Invalid host", 400, "The request came by a host that is not served here."
            )
        token = fields.token_of(given)
        caller = await self._known.caller(token) if token else None
        if caller is None:
            raise ProblemError(
                "not-authenticated",
                "Not authenticated",
                401,
                REFUSED,
                headers={"WWW-Authenticate": 'Bearer realm="sluice"'},
            )
        if not caller.may("call"):
            raise ProblemError("permission-denied", "Permission denied", 403, scopes.refusal("call"))
        if token in target.query or token in target.path:
            raise ProblemError("invalid-path", "Invalid path", 400, "The API key must not be part of the address.")
        if b"upgrade" in given:
            raise ProblemError(
                "not-implemented", "Not implemented", 501, "WebSockets and other upgrades are not supported."
            )
        wishes = fields.wishes_of(given)
        project = _project(caller, wishes.project, held)
        pool = held.pools.get(target.pool)
        if pool is None or not pool.is_open_to(project):
            raise NotFound(f"There is no pool {target.pool!r}, or it is not for this project.", "unknown-pool")
        call = Call(
            id=f"{self._name}{next(self._numbers):08x}",
            target=target,
            method=scope["method"],
            pool=pool,
            project=project,
            user=wishes.user,
            ip=_address(scope, given),
            wishes=wishes,
            headers=fields.onward(scope["headers"], given, token),
            body=body,
            actor=caller.name,
            idempotency_key=_key_of(given),
            encoding=given.get(b"content-encoding", b"").decode("latin-1"),
            traceparent=given.get(b"traceparent", b"").decode("latin-1"),
        )
        return caller, call

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


async def _unless_gone(exchange: Coroutine[Any, Any, None], body: Body) -> None:
    """Run the exchange; where its caller goes away meanwhile it is cancelled, and settled by what was seen."""
    running = asyncio.current_task()
    assert running is not None
    gone = asyncio.ensure_future(body.gone())
    is_left = is_over = False

    def leave(_: asyncio.Future[None]) -> None:
        nonlocal is_left
        if not is_over:
            is_left = True
            running.cancel()

    gone.add_done_callback(leave)
    try:
        await exchange
    except asyncio.CancelledError:
        if not is_left:
            raise
        running.uncancel()
        raise Disconnected from None
    finally:
        is_over = True
        gone.cancel()


def _project(caller: Caller, named: str | None, held: ConfigSnapshot) -> str | None:
    project = named or caller.project_slug or None
    if project is not None and (not caller.sees(project) or project not in held.projects):
        raise NotFound("There is no such project, or it is not yours.", "unknown-project")
    return project


def _address(scope: Scope, given: Mapping[bytes, bytes]) -> str | None:
    """The client's address, by the same rules as for all requests."""
    peer = (scope.get("client") or ("",))[0]
    return _address_of(peer, given.get(b"x-forwarded-for", b""), tuple(settings.TRUSTED_PROXIES))


@lru_cache(maxsize=1024)
def _address_of(peer: str, forwarded: bytes, trusted: tuple[Any, ...]) -> str | None:
    """`trusted` is what the rules go by: with others the same request comes from somebody else."""
    request = HttpRequest()
    request.META = {"REMOTE_ADDR": peer}
    if forwarded:
        request.META["HTTP_X_FORWARDED_FOR"] = forwarded.decode("latin-1")
    return client_ip(request)


def _key_of(given: Mapping[bytes, bytes]) -> str:
    key = given.get(b"idempotency-key", b"").decode("latin-1").strip()
    if len(key) > MAX_KEY:
        raise ProblemError(
            "invalid-request", "Invalid request", 400, f"Idempotency-Key has more than {MAX_KEY} characters."
        )
    return key


def _too_many() -> ProblemError:
    return ProblemError(
        "too-many-calls", "Too many calls", 503, "This process has as many calls in progress as it may; try again.",
        headers={"Retry-After": "1"}, retry_after=1.0,
    )  # fmt: skip


def _length(given: Mapping[bytes, bytes]) -> int | None:
    text = given.get(b"content-length")
    if text is None:
        return None
    if not text.isdigit() or len(text) > 18:
        raise ProblemError("invalid-request", "Invalid request", 400, "Content-Length is not a number.")
    return int(text)


def _dialect_by(given: Mapping[bytes, bytes]) -> str:
    """Whose SDK is calling, where the pool does not say."""
    if b"anthropic-version" in given:
        return "anthropic"
    return "openai" if b"x-stainless-lang" in given else ""


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
