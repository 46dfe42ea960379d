"""What the exceptions of providers' own libraries say, where they carry no HTTP answer that could be read.

Recognised by the library's name and the exception's members, so that none of these libraries has to be installed.
Each is returned in the form in which the provider's API says the same thing, for its dialect to read.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, NamedTuple

_TELEGRAM = frozenset({"telegram", "aiogram", "telebot"})
_TELEGRAM_STATUSES = {
    "RetryAfter": 429, "TelegramRetryAfter": 429, "Forbidden": 403, "TelegramForbiddenError": 403,
    "InvalidToken": 401, "TelegramUnauthorizedError": 401, "BadRequest": 400, "TelegramBadRequest": 400,
    "ChatMigrated": 400, "TelegramMigrateToChat": 400, "Conflict": 409, "TelegramConflictError": 409,
    "EndPointNotFound": 404, "TelegramNotFound": 400, "TelegramEntityTooLarge": 413, "TelegramServerError": 500,
}  # fmt: skip


class ReportedError(NamedTuple):
    """Status, header fields and body of an answer."""

    status: int
    headers: object
    body: object


def reported_by(error: BaseException) -> ReportedError | None:
    """The answer that an exception stands for; None where it is no such exception. Never raises."""
    try:
        return _reported_by(error)
    except Exception:  # noqa: BLE001 - a library's property may raise: then nothing is known
        return None


def _reported_by(error: Any) -> ReportedError | None:
    library = type(error).__module__.partition(".")[0]
    if library in _TELEGRAM:
        return _telegram(error)
    if library == "discord" and hasattr(error, "retry_after"):
        return ReportedError(429, {}, {"retry_after": _seconds(error.retry_after), "message": str(error)})
    response = getattr(error, "response", None)
    if isinstance(response, Mapping):
        return _botocore(response) if "ResponseMetadata" in response else ReportedError(200, {}, dict(response))
    body = getattr(error, "body", None)
    if library in ("openai", "anthropic") and isinstance(body, Mapping):  # an error event of a stream
        return ReportedError(200, {}, dict(body) if isinstance(body.get("error"), Mapping) else {"error": dict(body)})
    if library == "google":
        return _google(error)
    return None


def _telegram(error: Any) -> ReportedError | None:
    result = getattr(error, "result_json", None)
    if isinstance(result, Mapping) and isinstance(getattr(error, "error_code", None), int):
        return ReportedError(error.error_code, {}, dict(result))
    names = [kind.__name__ for kind in type(error).__mro__]
    status = next((_TELEGRAM_STATUSES[name] for name in names if name in _TELEGRAM_STATUSES), None)
    if status is None:
        return None
    body: dict[str, Any] = {"ok": False, "error_code": status, "description": str(getattr(error, "message", error))}
    wait = _seconds(getattr(error, "retry_after", None))
    if wait is not None:
        body["parameters"] = {"retry_after": wait}
    return ReportedError(status, {}, body)


def _botocore(response: Mapping[str, Any]) -> ReportedError | None:
    metadata, error = response["ResponseMetadata"], response.get("Error") or {}
    status = metadata.get("HTTPStatusCode")
    if not isinstance(status, int):
        return None
    return ReportedError(
        status, metadata.get("HTTPHeaders"), {"code": error.get("Code"), "message": error.get("Message")}
    )


def _google(error: Any) -> ReportedError | None:
    """`google.api_core` (gRPC too) and `google.genai`, which has the error's JSON in `details`."""
    code, details = getattr(error, "code", None), getattr(error, "details", None)
    if not isinstance(code, int) or not 400 <= code <= 599:
        return None
    if isinstance(details, Mapping | list) and (isinstance(details, Mapping) or not details or _is_json(details[0])):
        holds_error = isinstance(details, Mapping) and "error" in details
        inner = {"code": int(code), "message": str(getattr(error, "message", "")), "details": details}
        return ReportedError(int(code), {}, dict(details) if holds_error else {"error": inner})
    delays = [getattr(getattr(detail, "retry_delay", None), "seconds", None) for detail in details or ()]
    retry = [{"retryDelay": {"seconds": delay}} for delay in delays if isinstance(delay, int)]
    inner = {"code": int(code), "message": str(getattr(error, "message", "")), "details": retry}
    return ReportedError(int(code), {}, {"error": inner})


def _is_json(value: object) -> bool:
    return isinstance(value, Mapping | str | int | float)


def _seconds(wait: object) -> float | None:
    if isinstance(wait, timedelta):
        return wait.total_seconds()
    return float(wait) if isinstance(wait, int | float) and not isinstance(wait, bool) else None
