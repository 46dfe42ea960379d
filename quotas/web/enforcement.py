"""Enforce policies on a Django project's own views: what the middleware, the throttle and the decorator share.

Settings, all optional, in a dict `SLUICE`:

    PROJECT          slug of the project that all requests count for
    PROJECT_OF       dotted path of a callable(request) -> slug or None, instead
    USER_OF          dotted path of a callable(request) -> the user's id or None; default: request.user's key
    KEYS_OF          dotted path of a callable(request) -> {key name: value} for policies of scope custom
    EXCLUDED_PATHS   endpoint patterns that are not checked, such as "/health" or "GET /static/*"
"""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from inspect import isawaitable
from typing import Any

import structlog
from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.exceptions import BadRequest, PermissionDenied, SuspiciousOperation
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.utils.module_loading import import_string
from rest_framework.exceptions import APIException

from quotas.engine.types import CallOutcome, Decision
from quotas.errors import LimiterUnavailable, NetworkDenied, UnknownProject
from quotas.rest import decisions
from quotas.rest.problems import MEDIA_TYPE, document
from quotas.services import limits, outcomes
from quotas.services.limits import Check
from quotas.snapshot import resolve
from quotas.snapshot.config import configuration
from quotas.snapshot.patterns import Endpoint, compile_pattern, routed
from quotas.web import bodies
from quotas.web.identity import client_ip, user_of

ACTOR = "enforcement"
_REPORTED = "_sluice_reported"
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Refused:
    """The request is refused: `response` says why."""

    response: HttpResponse
    retry_after: float | None = None


def check_of(request: HttpRequest, **overrides: Any) -> Check:
    """The check for a request: its address, user, project, method and path."""
    options = _options()
    facts: dict[str, Any] = {
        "ip": client_ip(request),
        "user": (options.user_of or user_of)(request) if "user" not in overrides and counts_users() else None,
        "project": options.project_of(request) if options.project_of else options.project,
        "endpoint": request.path_info,
        "method": request.method,
        "keys": options.keys_of(request) if options.keys_of else {},
    }
    if "endpoint" not in overrides:
        facts["routed"] = _routed(request)
    facts |= overrides
    facts["cost"] = limits.cost_of(facts.get("cost"))
    facts["user"], facts["keys"] = limits.text_of(facts["user"]), limits.texts_of(facts["keys"])
    return Check(**facts)


def counts_users() -> bool:
    """Whether any policy or tier depends on the user. Where none does, a request's user is not read: that reads the
    session, which takes queries and makes the answer vary by its cookie."""
    snapshot = resolve.snapshot()
    return bool(snapshot.user_tiers) or snapshot.index.counts_users


def is_excluded(request: HttpRequest) -> bool:
    method, endpoint = request.method or "", _routed(request)
    return any(endpoint.exempted_by(pattern, method) for pattern in _options().excluded)


def _routed(request: HttpRequest) -> Endpoint:
    """The path as the router has it, and with the script's prefix before it."""
    return routed(request.path_info, request.path)


def enforce(asked: Check) -> Decision | Refused:
    """Decide and charge. What can't be decided is refused: no error of ours lets a request past a limit."""
    try:
        decision = limits.check(asked, actor=ACTOR)
    except LimiterUnavailable as error:
        return Refused(
            _response(decisions.refusal(error).document(), decisions.refusal(error).headers), error.retry_after
        )
    except NetworkDenied as error:
        return Refused(_response(decisions.refusal(error).document(), {}))
    except UnknownProject:
        body = document("forbidden", "Forbidden", 403, "The request belongs to no known project.")
        return Refused(_response(body, {}))
    if decision.allowed:
        return decision
    body = decisions.body_of(decision, asked.project)
    body.setdefault("status", decisions.status_of(decision))
    return Refused(_response(body, decisions.headers_of(decision)), decision.retry_after)


class Passed:
    """A request that was admitted: when its answer has ended, slots are freed and adaptive policies get its outcome.

    Nothing here raises: the view's work is done, and its answer is worth more than its accounts.
    """

    def __init__(self, decision: Decision) -> None:
        self.decision = decision
        self._began = time.perf_counter()
        self._latency: float | None = None
        self._lock = threading.Lock()
        self._has_ended = False

    def answered(self, response: HttpResponseBase) -> None:
        """The view answered; where its body is streamed or still to be rendered, the request ends with that."""
        self._latency = time.perf_counter() - self._began
        if bodies.is_open(response):
            bodies.follow(response, self)
        else:
            self.ended(response)

    async def answered_async(self, response: HttpResponseBase) -> None:
        """`answered`, on an event loop."""
        self._latency = time.perf_counter() - self._began
        if bodies.is_open(response):
            bodies.follow(response, self)
        else:
            await self.ended_async(response)

    def ended(self, response: HttpResponseBase | None = None, error: BaseException | None = None) -> None:
        """The answer has ended, or the view or its body raised `error`. The first call counts."""
        with self._lock:
            if self._has_ended:
                return
            self._has_ended = True
        if self.decision.reservation is not None:
            limits.settle_or_later(self.decision.reservation)
        failed = response.status_code >= 500 if response is not None else _is_failure(error)
        latency = time.perf_counter() - self._began if self._latency is None else self._latency
        try:
            outcome = CallOutcome("server" if failed else "ok", latency=latency)
            outcomes.of_policies((state.policy for state in self.decision.limits), outcome)
        except Exception:
            log.exception("request.outcome_not_counted")

    async def ended_async(self, response: HttpResponseBase | None = None, error: BaseException | None = None) -> None:
        """`ended`, in a thread where it may have to call Redis or SQL."""
        snapshot, _ = configuration.peek()
        if self.decision.reservation is not None or snapshot is None or snapshot.adaptive:
            await sync_to_async(self.ended)(response, error)


def guard(request: HttpRequest, asked: Check, respond: Callable[[], HttpResponseBase]) -> HttpResponseBase:
    """The response of `respond` for a request that the policies allow, with the rate limit fields; else the refusal.

    The request's slots are freed and its outcome is noted when the response has ended.
    """
    decision = enforce(asked)
    if isinstance(decision, Refused):
        return decision.response
    passed = Passed(decision)
    try:
        response = respond()
    except BaseException as error:  # a cancelled request frees its slot too
        passed.ended(error=error)
        raise
    passed.answered(response)
    add_headers(request, response, decision)
    return response


async def guard_async(
    request: HttpRequest,
    asked: Callable[[], Check],
    respond: Callable[[], HttpResponseBase | Awaitable[HttpResponseBase]],
) -> HttpResponseBase:
    """`guard` on an event loop. `asked` runs in a thread with the check: request.user may read SQL."""
    decision = await sync_to_async(lambda: enforce(asked()))()
    if isinstance(decision, Refused):
        return decision.response
    passed = Passed(decision)
    try:
        response = respond()
        if isawaitable(response):
            response = await response
    except BaseException as error:  # a cancelled request frees its slot too
        await passed.ended_async(error=error)
        raise
    await passed.answered_async(response)
    add_headers(request, response, decision)
    return response


def _is_failure(error: BaseException | None) -> bool:
    """Whether it is no answer below 500 that Django or REST framework makes of it, and no client that went away."""
    if isinstance(error, APIException):
        return error.status_code >= 500
    return isinstance(error, Exception) and not isinstance(
        error, Http404 | PermissionDenied | BadRequest | SuspiciousOperation
    )


def add_headers(request: HttpRequest, response: HttpResponseBase, decision: Decision) -> None:
    """The rate limit fields, unless an inner layer has set them for this request already. Fields that come with an
    answer from a cache are another request's."""
    if getattr(request, _REPORTED, None) is response:
        return
    setattr(request, _REPORTED, response)
    for name, value in decisions.headers_of(decision).items():
        response[name] = value


def _response(body: Mapping[str, Any], headers: Mapping[str, str]) -> JsonResponse:
    fields = {"Cache-Control": "no-store", **headers}
    return JsonResponse(body, status=body["status"], headers=fields, content_type=MEDIA_TYPE)


@dataclass(frozen=True, slots=True)
class _Options:
    project: str | None
    project_of: Callable[[HttpRequest], str | None] | None
    user_of: Callable[[HttpRequest], str | None] | None
    keys_of: Callable[[HttpRequest], Mapping[str, str]] | None
    excluded: tuple[Any, ...]


@lru_cache(maxsize=8)
def _read(
    project: str | None, project_of: str | None, user: str | None, keys: str | None, excluded: tuple[str, ...]
) -> _Options:
    return _Options(
        project,
        import_string(project_of) if project_of else None,
        import_string(user) if user else None,
        import_string(keys) if keys else None,
        tuple(compile_pattern(text) for text in excluded),
    )


def _options() -> _Options:
    given = getattr(settings, "SLUICE", {})
    return _read(
        given.get("PROJECT"),
        given.get("PROJECT_OF"),
        given.get("USER_OF"),
        given.get("KEYS_OF"),
        tuple(given.get("EXCLUDED_PATHS", ())),
    )
