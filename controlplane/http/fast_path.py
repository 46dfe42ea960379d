"""Frequent calls without the request cycles of Django and DRF: the same views and responses at a tenth of the cost.

    a plain POST to a route below -> key (memory) -> scope -> body -> the view itself, in a thread
                                                                -> or, for `check`, on the event loop
    anything out of the ordinary  -> not taken: Django answers it, as it answers all other paths

The views get a `LeanRequest` instead of DRF's; what they raise becomes the problem that DRF would make of it.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import structlog
from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.http.request import split_domain_port, validate_host
from rest_framework import exceptions

from controlplane.http.hot_cache import HotCache
from controlplane.http.request import Disconnected, LeanRequest, Receive, Scope, Send, headers_of, read_body, wait_gone
from controlplane.http.response import Answer, rendered, security_headers
from controlplane.http.threads import Threads
from queues.api import jobs
from quotas.api import leases, limits
from quotas.errors import IdempotencyConflict, LimiterUnavailable, NetworkDenied, UnknownPool, UnknownProject
from quotas.rest import decision_json, decisions, problems, scopes
from quotas.rest.authentication import REFUSED, ApiKeyAuthentication
from quotas.rest.caller import Caller
from quotas.rest.idempotency import IdempotencyMismatch
from quotas.rest.parsing import parse_object
from quotas.rest.views import ApiView
from quotas.services import accounts_async
from quotas.services.limits import Check, Token
from quotas.services.limits_async import AsyncChecks, CallerGone

log = structlog.get_logger(__name__)
PREFIX = "/api/v1/"
_LEAN = re.compile(r"/api/v1/(?:pools/(?P<pool>[^/%]+)/acquire|leases/(?P<lease>[^/%]+)/settle)")
_JSON = "application/json"
LARGE = 64 * 1024
"""Bytes from which a body is parsed in a thread."""
KEPT, REPEATED = 4096, 1024
"""How many parsed bodies are cached, and the largest body that is."""


@dataclass(frozen=True, slots=True)
class Route:
    """A view, and the arguments from its path."""

    view: type[ApiView]
    kwargs: dict[str, str]
    submits: bool = False
    """Whether it submits jobs: in threads of their own, since a bulk takes long."""


_CHECK = Route(limits.CheckView, {})
_FIXED = {
    "/api/v1/limits/check": _CHECK,
    "/api/v1/limits/check-batch": Route(limits.CheckBatchView, {}),
    "/api/v1/limits/settle": Route(limits.SettleView, {}),
    "/api/v1/jobs": Route(jobs.Jobs, {}, submits=True),
    "/api/v1/jobs/bulk": Route(jobs.JobsBulk, {}, submits=True),
}


def _allowed(view: type[ApiView]) -> bytes:
    """The methods of the view as DRF lists them."""
    source = {"head": "get"}
    return ", ".join(name.upper() for name in view.http_method_names if hasattr(view, source.get(name, name))).encode()


_ALLOW = {
    view: _allowed(view)
    for view in (*(route.view for route in _FIXED.values()), leases.AcquireView, leases.SettleLeaseView)
}


def route_of(path: str) -> Route | None:
    """The route of the fast path at this path; None: Django's."""
    fixed = _FIXED.get(path)
    if fixed is not None or not path.endswith(("/acquire", "/settle")):
        return fixed
    found = _LEAN.fullmatch(path)
    if found is None:
        return None
    if found["pool"] is not None:
        return Route(leases.AcquireView, {"pool": found["pool"]})
    return Route(leases.SettleLeaseView, {"lease": found["lease"]})


class FastPath:
    """The fast path of one event loop."""

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self.cache = HotCache(threads)
        self.checks = AsyncChecks(threads.short, threads.waiting)
        self._questions: dict[tuple[bytes, str, bool], tuple[Check, Token]] = {}
        self._fixed = security_headers()
        self._challenge = ApiKeyAuthentication().authenticate_header(None)  # type: ignore[arg-type]

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Answer the request. False if Django must answer it; nothing of it was read then."""
        path = scope["path"]
        route = route_of(path) if scope["method"] == "POST" and path.startswith(PREFIX) else None
        if route is None:
            return False
        headers = headers_of(scope)
        if headers is None or not _is_ordinary(headers) or b"%" in scope.get("raw_path", b""):
            return False
        try:
            answer = await self._answer(route, path, headers, receive)
        except Disconnected:
            return True
        except Exception as error:  # noqa: BLE001 - answered as a problem document, like any view's error
            answer = _problem(error, path)
        await answer.send(send, [(b"allow", _ALLOW[route.view]), *self._fixed])
        return True

    async def _answer(self, route: Route, path: str, headers: dict[str, str], receive: Receive) -> Answer:
        caller = await self._caller(headers["authorization"])
        needed = route.view.scopes["POST"]
        if not caller.may(needed):
            raise exceptions.PermissionDenied(scopes.refusal(needed))
        limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
        body = await read_body(receive, limit)
        if len(body) > limit:
            raise RequestDataTooBig(f"A body may have {limit} bytes.")
        kind = headers.get("content-type", "")
        if body and kind != _JSON and not kind.startswith("application/json;"):
            raise exceptions.UnsupportedMediaType(kind)
        if route is _CHECK and len(body) < LARGE and "idempotency-key" not in headers:
            return await self._check(caller, *self._asked(caller, body, path, headers), receive)
        in_thread = self._threads.submit if route.submits else self._threads.short
        data = parse_object(body) if len(body) < LARGE else await in_thread(lambda: parse_object(body))
        request = LeanRequest(path, _Named(headers), caller, data)
        if route is _CHECK:
            return await self._check(caller, *self._view_of(request).asked(request), receive)  # type: ignore[arg-type]
        if route.view is leases.AcquireView and request.data.get("max_wait"):
            return await self._acquire(route.kwargs["pool"], request, receive)
        return await self._view(route, request)

    async def _caller(self, authorization: str) -> Caller:
        word, _, token = authorization.partition(" ")
        token = token.strip()
        caller = await self.cache.caller(token) if word.lower() == "bearer" and token.isascii() else None
        if caller is None:
            refused = exceptions.AuthenticationFailed(REFUSED)
            refused.auth_header = self._challenge  # type: ignore[attr-defined]  # as DRF's own handler does
            raise refused
        return caller

    @staticmethod
    def _view_of(request: LeanRequest) -> limits.CheckView:
        view = limits.CheckView()
        view.request = request  # type: ignore[assignment]
        return view

    def _asked(self, caller: Caller, body: bytes, path: str, headers: dict[str, str]) -> tuple[Check, Token]:
        """The parsed body. The same bytes with the same scopes mean the same, so a cached result is used first."""
        kind = (body, caller.project_slug, caller.may("bypass"))
        known = self._questions.get(kind)
        if known is None:
            request = LeanRequest(path, _Named(headers), caller, parse_object(body))
            known = self._view_of(request).asked(request)  # type: ignore[arg-type]
            if len(body) <= REPEATED:
                if len(self._questions) >= KEPT:
                    self._questions.clear()
                self._questions[kind] = known
        return known

    async def _check(self, caller: Caller, asked: Check, token: Token, receive: Receive) -> Answer:
        snapshot = await self.cache.configuration()
        gone = asyncio.ensure_future(wait_gone(receive)) if asked.max_wait else None
        try:
            decision = await self.checks.check(asked, snapshot, actor=caller.name, token=token, gone=gone)
        except CallerGone:
            raise Disconnected from None
        except (UnknownProject, NetworkDenied, LimiterUnavailable) as error:
            raise decisions.refusal(error) from None
        except IdempotencyConflict:
            raise IdempotencyMismatch from None
        finally:
            if gone is not None:
                gone.cancel()
        fields = decisions.headers_of(decision).items()
        if decision.allowed:
            return Answer(200, decision_json.allowed(decision, asked.project), _JSON, fields)
        body = rendered(decisions.body_of(decision, asked.project))
        return Answer(decisions.status_of(decision), body, problems.MEDIA_TYPE, fields)

    async def _acquire(self, pool: str, request: LeanRequest, receive: Receive) -> Answer:
        """Acquire an account for a waiting caller: without a thread, and without an account if the caller disconnects."""
        view = leases.AcquireView()
        view.request = request  # type: ignore[assignment]
        asked = await self._threads.short(view.asked)
        acquiring = asyncio.ensure_future(accounts_async.acquire(pool, **asked, in_thread=self._threads.waiting))
        gone = asyncio.ensure_future(wait_gone(receive))
        try:
            await asyncio.wait({acquiring, gone}, return_when=asyncio.FIRST_COMPLETED)
            if gone.done():
                if acquiring.done() and acquiring.exception() is None:
                    await accounts_async.release_unused(acquiring.result(), self._threads.waiting)
                raise Disconnected
            admission = acquiring.result()
        except (UnknownPool, LimiterUnavailable) as error:
            raise view.refused(pool, error) from None
        finally:
            gone.cancel()
            acquiring.cancel()
        return await self._threads.short(lambda: Answer.of_response(view.answer(pool, admission)))

    async def _view(self, route: Route, request: LeanRequest) -> Answer:
        def run() -> Answer:
            view: Any = route.view()
            view.request = request
            try:
                return Answer.of_response(view.post(request, **route.kwargs))
            except Exception as error:  # noqa: BLE001 - each view says which problem its errors are
                raise view.problem(error) from None

        return await (self._threads.submit if route.submits else self._threads.short)(run)

    def close(self) -> None:
        self.checks.close()


class _Named(dict[str, str]):
    """Header fields by name in any case."""

    def get(self, name: str, default: Any = None) -> Any:
        return super().get(name.lower(), default)


def _is_ordinary(headers: dict[str, str]) -> bool:
    """Whether the request has an allowed host and something that may be a key."""
    return "authorization" in headers and is_ours(headers.get("host", ""))


@lru_cache(maxsize=256)
def is_ours(host: str) -> bool:
    return validate_host(split_domain_port(host)[0], settings.ALLOWED_HOSTS)


def _problem(error: Exception, path: str) -> Answer:
    found = problems.translate(error)
    if found.status >= 500 and not isinstance(error, problems.ProblemError):
        log.error("request.failed", method="POST", path=path, exc_info=error)
    return Answer.of_problem(found)
