"""Errors as `application/problem+json` (RFC 9457): one shape, stable types, the place of each mistake."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import structlog
from django.core.exceptions import PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from redis.exceptions import RedisError
from rest_framework import exceptions
from rest_framework.response import Response

from quotas.engine.errors import LimiterUnavailable
from quotas.rest import pointers
from quotas.shapes import Shape, field

MEDIA_TYPE = "application/problem+json"
INVALID = "invalid-request"

log = structlog.get_logger(__name__)


class FieldError(Shape):
    """One mistake in bad input."""

    pointer: str = field("place", help="A JSON pointer, such as `#/project`.")
    parameter: str = field(required=False, help="The query parameter with the mistake.")
    detail: str


class Problem(Shape):
    """RFC 9457."""

    type: str = field(help="Stable: `/problems/<slug>`.")
    title: str
    status: int
    detail: str
    errors: list[FieldError] = field(required=False, help="The place of each mistake in bad input.")


class ProblemError(Exception):
    """A request is answered with a problem document instead of a result."""

    def __init__(
        self,
        slug: str,
        title: str,
        status: int,
        detail: str,
        errors: Iterable[pointers.FieldError] = (),
        headers: Mapping[str, str] | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(detail)
        self.slug, self.title, self.status, self.detail = slug, title, status, detail
        self.errors, self.headers, self.extra = list(errors), dict(headers or {}), extra

    def document(self) -> dict[str, Any]:
        return document(self.slug, self.title, self.status, self.detail, self.errors, **self.extra)


class InvalidRequest(ProblemError):
    """The request has a mistake, at the places in `errors` (400)."""

    def __init__(self, detail: str, errors: Iterable[pointers.FieldError] = ()) -> None:
        super().__init__(INVALID, "Invalid request", 400, detail, errors)

    @classmethod
    def at(cls, pointer: str, detail: str) -> InvalidRequest:
        return cls.of([pointers.FieldError(pointer, detail)])

    @classmethod
    def of(cls, errors: Sequence[pointers.FieldError]) -> InvalidRequest:
        """The first mistake in the detail, and all of them in `errors`."""
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        return cls(f"{errors[0]}{more}", errors)


class NotFound(ProblemError):
    """There is no such thing, or it is not the caller's (404): the answer is the same."""

    def __init__(self, detail: str, slug: str = "not-found", errors: Iterable[pointers.FieldError] = ()) -> None:
        super().__init__(slug, "Not found", 404, detail, errors)


def document(
    slug: str, title: str, status: int, detail: str, errors: Iterable[pointers.FieldError] | None = None, **extra: Any
) -> dict[str, Any]:
    """The body of a problem answer. `extra` are further members, such as `retry_after`."""
    about: dict[str, Any] = {"type": f"/problems/{slug}", "title": title, "status": status, "detail": detail}
    if errors:
        about["errors"] = [_shown(error) for error in errors]
    return {**Problem.of(**about), **extra}


def _shown(error: pointers.FieldError) -> dict[str, Any]:
    return FieldError.of(error, parameter=error.parameter) if error.parameter else FieldError.of(error)


def problem(
    slug: str,
    title: str,
    status: int,
    detail: str,
    errors: Iterable[pointers.FieldError] | None = None,
    headers: Mapping[str, str] | None = None,
    **extra: Any,
) -> Response:
    """A problem as DRF's response."""
    return Response(
        document(slug, title, status, detail, errors, **extra),
        status,
        headers=dict(headers or {}),
        content_type=MEDIA_TYPE,
    )


def handle(exc: Exception, context: Mapping[str, Any]) -> Response:
    """DRF's exception handler: whatever a view raises becomes a problem; internal faults show no details."""
    from rest_framework.views import set_rollback  # that module reads the settings, which name this one

    found = translate(exc)
    if found.status >= 500 and not isinstance(exc, ProblemError):
        request = context.get("request")
        log.error(
            "request.failed", method=getattr(request, "method", ""), path=getattr(request, "path", ""), exc_info=exc
        )
    set_rollback()
    return problem(
        found.slug, found.title, found.status, found.detail, found.errors, headers=found.headers, **found.extra
    )


def translate(exc: Exception) -> ProblemError:
    """The problem document for any exception."""
    if isinstance(exc, ProblemError):
        return exc
    if isinstance(exc, exceptions.APIException):
        return _of_rest(exc)
    for kinds, storage, slug in _UNAVAILABLE:
        if isinstance(exc, kinds):
            detail = f"{storage} does not answer; try again."
            return ProblemError(f"{slug}-unavailable", f"{slug.capitalize()} unavailable", 503, detail, headers=_SOON)
    match exc:
        case PermissionDenied():
            return ProblemError("forbidden", "Forbidden", 403, "Not allowed.")
        case Http404():
            return _no_such_thing()
        case RequestDataTooBig():
            return ProblemError("body-too-large", "Body too large", 413, str(exc))
        case SuspiciousOperation():
            return InvalidRequest("The request can't be read.")
        case _:
            return _internal_error()


_SOON = {"Retry-After": "2"}
_UNAVAILABLE: tuple[tuple[tuple[type[Exception], ...], str, str], ...] = (
    ((OperationalError, InterfaceError), "The database", "storage"),
    ((LimiterUnavailable,), "The limiter", "limiter"),
    ((RedisError,), "Redis", "redis"),  # an answer with an error (full, loading, a replica) is as good as none
)
"""Exceptions of servers that a request needs and that are unavailable."""


def _of_rest(exc: exceptions.APIException) -> ProblemError:
    """What the REST framework raises."""
    match exc:
        case exceptions.ValidationError():
            return InvalidRequest.of(pointers.errors_of(exc.detail) or [pointers.FieldError("", "invalid")])
        case exceptions.ParseError():
            return InvalidRequest(str(exc.detail))
        case exceptions.NotAuthenticated() | exceptions.AuthenticationFailed():
            challenge = getattr(exc, "auth_header", "Bearer")
            return ProblemError(
                "unauthenticated", "Not authenticated", 401, str(exc.detail), headers={"WWW-Authenticate": challenge}
            )
        case exceptions.PermissionDenied():
            return ProblemError("forbidden", "Forbidden", 403, str(exc.detail or "Not allowed."))
        case exceptions.NotFound():
            return _no_such_thing()
        case exceptions.MethodNotAllowed():
            return ProblemError("method-not-allowed", "Method not allowed", 405, str(exc.detail))
        case exceptions.UnsupportedMediaType():
            return ProblemError(
                "unsupported-media-type", "Unsupported media type", 415, "Send the body as application/json."
            )
        case exceptions.Throttled():
            wait: float | None = getattr(exc, "wait", None)
            headers = {} if wait is None else {"Retry-After": str(max(1, math.ceil(wait)))}
            return ProblemError("quota-exceeded", "Quota exceeded", 429, str(exc.detail), headers=headers)
    if exc.status_code < 500 or exc.status_code == 503:
        return ProblemError("refused", "Refused", exc.status_code, str(exc.detail))
    return _internal_error()


def _no_such_thing() -> NotFound:
    return NotFound("There is no such thing, or it is not yours.")


def _internal_error() -> ProblemError:
    return ProblemError("internal-error", "Internal error", 500, "The request failed for a fault of the server.")


def _plain(status: int, slug: str, title: str, detail: str) -> JsonResponse:
    return JsonResponse(document(slug, title, status, detail), status=status, content_type=MEDIA_TYPE)


def bad_request(request: HttpRequest, exception: Exception) -> JsonResponse:
    """Django's `handler400`: what is refused before a view is reached."""
    return _plain(400, INVALID, "Invalid request", "The request can't be read.")


def server_error(request: HttpRequest) -> JsonResponse:
    """Django's `handler500`."""
    return _plain(500, "internal-error", "Internal error", "The request failed for a fault of the server.")


@csrf_exempt
def no_such_path(request: HttpRequest) -> JsonResponse:
    """Whatever else is below /api/."""
    return _plain(404, "not-found", "Not found", "There is nothing at this address.")
