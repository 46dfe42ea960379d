"""`/gateway/{pool}/{path}`: who calls, what is asked, and the answer to what can't be done."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Mapping

import structlog
from django.conf import settings
from django.http import HttpRequest

from controlplane.gateway import fields
from controlplane.gateway.admission import Admissions
from controlplane.gateway.body import Body
from controlplane.gateway.call import Call
from controlplane.gateway.exchange import Broken, Exchange, drained
from controlplane.gateway.refusals import answer_of
from controlplane.gateway.target import Target, target_of
from controlplane.gateway.upstream import Upstream
from controlplane.http.fast_path import is_ours
from controlplane.http.hot_cache import HotCache
from controlplane.http.request import Disconnected, Receive, Scope, Send
from controlplane.http.threads import Threads
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
SETTLING = 3.0
"""Seconds in which what is still to be settled may be so, when the process ends."""


class Gateway:
    """Answers calls through pools, for one event loop."""

    def __init__(self, threads: Threads, known: HotCache, checks: AsyncChecks) -> None:
        self._known = known
        self._admissions = Admissions(threads, checks)
        self._upstream = Upstream()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        body = Body(receive, settings.GATEWAY_MAX_BODY)
        dialect = ""
        exchange: Exchange | None = None
        try:
            given = fields.single(scope["headers"])
            dialect = _dialect_by(given)
            target = target_of(scope)
            held = await self._known.configuration()
            if target.pool in held.pools:
                dialect = held.pools[target.pool].provider.dialect
            call = await self._call(scope, given, target, held, body)
            exchange = Exchange(call, held, self._admissions, self._upstream, began)
            await _unless_gone(exchange, send, body)
        except Disconnected:
            return
        except Broken:
            raise  # the server closes the connection without a proper end
        except Exception as error:
            if exchange is not None and exchange.started:
                raise
            await answer_of(_problem(error), dialect).send(send)

    async def _call(
        self, scope: Scope, given: Mapping[bytes, bytes], target: Target, held: ConfigSnapshot, body: Body
    ) -> Call:
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
        await body.begin(_length(given))
        call = Call(
            id=secrets.token_hex(12),
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
            idempotent=b"idempotency-key" in given,
        )
        call.read_body(held)
        return call

    async def close(self) -> None:
        await drained(self._admissions, SETTLING)
        await self._upstream.close()


async def _unless_gone(exchange: Exchange, send: Send, body: Body) -> None:
    """Run the exchange; where its caller goes away meanwhile it is cancelled, and settled by what was seen."""
    gone = asyncio.ensure_future(body.gone())
    work = asyncio.ensure_future(exchange.run(send))
    try:
        await asyncio.wait({gone, work}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            raise Disconnected
        work.result()
    finally:
        gone.cancel()
        if not work.done():
            work.cancel()


def _project(caller: Caller, named: str | None, held: ConfigSnapshot) -> str | None:
    project = named or caller.project_slug or None
    if project is not None and (not caller.sees(project) or project not in held.projects):
        raise NotFound("There is no such project, or it is not yours.", "unknown-project")
    return project


def _address(scope: Scope, given: Mapping[bytes, bytes]) -> str | None:
    """The client's address, by the same rules as for all requests."""
    request = HttpRequest()
    request.META = {"REMOTE_ADDR": (scope.get("client") or ("",))[0]}
    if forwarded := given.get(b"x-forwarded-for"):
        request.META["HTTP_X_FORWARDED_FOR"] = forwarded.decode("latin-1")
    return client_ip(request)


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
    if isinstance(error, BadAddress):
        return ProblemError("invalid-request", "Invalid request", 400, str(error))
    found = problems.translate(error)
    if found.status >= 500 and not isinstance(error, ProblemError):
        log.error("gateway.fault", exc_info=error)
    return found
