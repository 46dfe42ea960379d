"""Refusals inside an answer of status 2xx: the status that the same refusal has where it comes with one of its own.

A dialect is then read as if the provider had sent that status. Only places where the provider itself puts errors are
looked at, never the content of an answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from quotas.engine.dialects import numbers
from quotas.engine.dialects.response import Answer, dig

STATUSES = {
    "rate_limit_error": 429, "rate_limit_exceeded": 429, "rate_limited": 429, "too_many_requests": 429,
    "tokens": 429, "requests": 429, "insufficient_quota": 429, "RESOURCE_EXHAUSTED": 429, "1113": 429, "1302": 429,
    "overloaded_error": 529, "overloaded": 529, "UNAVAILABLE": 503, "service_unavailable": 503,
    "api_error": 500, "server_error": 500, "internal_error": 500, "internal_server_error": 500, "INTERNAL": 500,
    "timeout_error": 504, "timeout": 504, "DEADLINE_EXCEEDED": 504,
    "authentication_error": 401, "invalid_api_key": 401, "UNAUTHENTICATED": 401,
    "permission_error": 403, "PERMISSION_DENIED": 403, "billing_error": 402, "payment_required": 402,
    "invalid_request_error": 400, "invalid_prompt": 400, "INVALID_ARGUMENT": 400, "FAILED_PRECONDITION": 400,
    "not_found_error": 404, "NOT_FOUND": 404, "request_too_large": 413, "content_filter": 400,
    "context_length_exceeded": 400, "model_not_found": 404,
}  # fmt: skip
_UNKNOWN = 500
"""An error of no known kind, in an answer that had begun well, is the server's."""
_MINIMAX = {1002: 429, 1039: 429, 1041: 429, 1008: 402, 1004: 401, 2049: 401, 1026: 400, 1027: 400, 2013: 400}
_GRAPHQL = {
    "RATE_LIMITED": 429, "RATE_LIMIT": 429, "RATELIMITED": 429, "THROTTLED": 429, "TOO_MANY_REQUESTS": 429,
    "graphql_rate_limit": 429, "MAX_COST_EXCEEDED": 400, "MAX_NODE_LIMIT_EXCEEDED": 400, "ACCESS_DENIED": 403,
    "FORBIDDEN": 403, "INSUFFICIENT_SCOPES": 403, "UNAUTHENTICATED": 401, "INTERNAL_SERVER_ERROR": 500,
    "SHOP_INACTIVE": 402, "SERVICE_UNAVAILABLE": 503,
}  # fmt: skip
_WORDS = ("rror", "base_resp")
"""One of these is in every member by which a provider reports an error: most bodies have none and are not searched."""
_GRAPHQL_WORDS = (("secondary rate limit", 429), ("API rate limit", 429), ("Throttled", 429))


def may_be_in(body: bytes) -> bool:
    return b"rror" in body or b"base_resp" in body


def refusal(dialect: str, answer: Answer) -> Answer | None:
    """The answer as a refusal with a status of its own; None where it is none."""
    if not 200 <= answer.status < 300 or not answer.may_hold(*_WORDS):
        return None
    for part in reversed(answer.parts[-500:]):
        for find in _FINDERS.get(dialect, (_coded, _graphql)):
            for status, body in find(part):
                return answer.refused(status, body)
    return None


_LIMITED_WORDS = re.compile(r"too many requests|rate limit (?:exceeded|reached)|quota exceeded", re.IGNORECASE)
_OVERLOADED_WORDS = re.compile(r"overloaded|at capacity", re.IGNORECASE)


def _openai(part: Any) -> Iterator[tuple[int, Any]]:
    """A chunk's `error`; the events `error` and `response.failed`; OpenRouter's error of a choice; MiniMax's base_resp."""
    errors = [dig(part, "error"), dig(part, "response", "error"), dig(part, "choices", 0, "error")]
    if dig(part, "type") == "error" and dig(part, "error") is None:
        errors.append(part)
    for error in errors:
        if isinstance(error, dict) and error:
            yield _status(error), {"error": error}
    code = numbers.whole(dig(part, "base_resp", "status_code"))
    if code:
        yield _MINIMAX.get(code, _UNKNOWN), {"error": {"message": dig(part, "base_resp", "status_msg"), "code": code}}


def _anthropic(part: Any) -> Iterator[tuple[int, Any]]:
    if dig(part, "type") == "error" and isinstance(dig(part, "error"), dict):
        yield _status(part["error"]), part


def _gemini(part: Any) -> Iterator[tuple[int, Any]]:
    if isinstance(dig(part, "error"), dict) and part["error"]:
        yield _status(part["error"]), part


def _coded(part: Any) -> Iterator[tuple[int, Any]]:
    """Any API: an `error` object that carries an HTTP status."""
    code = numbers.whole(dig(part, "error", "code"))
    if code is not None and 400 <= code <= 599:
        yield code, part


def _graphql(part: Any) -> Iterator[tuple[int, Any]]:
    """Errors of GraphQL: a rate limit always, any other only where nothing was done (no `data`)."""
    errors = dig(part, "errors")
    if not isinstance(errors, list) or not errors:
        return
    statuses = [_graphql_status(error) for error in errors[:20]]
    data = dig(part, "data")
    nothing = data is None or (isinstance(data, dict) and not any(value is not None for value in data.values()))
    if 429 in statuses:
        yield 429, {**part, "message": dig(errors[statuses.index(429)], "message")}
    elif nothing:
        yield max(statuses), {**part, "message": dig(errors, statuses.index(max(statuses)), "message")}


def _graphql_status(error: Any) -> int:
    for place in (("type",), ("extensions", "code"), ("code",)):
        code = dig(error, *place)
        if isinstance(code, str) and code in _GRAPHQL:
            return _GRAPHQL[code]
    message = dig(error, "message")
    if isinstance(message, str):
        return next((status for words, status in _GRAPHQL_WORDS if message.find(words, 0, 80) >= 0), 400)
    return 400


def _status(error: dict[str, Any]) -> int:
    """From the error's own number, else from its code, kind or status in words."""
    for name in ("code", "status", "status_code", "http_code"):
        number = numbers.whole(error.get(name))
        if number is not None and 400 <= number <= 599:
            return number
    words = (error.get(name) for name in ("code", "type", "status"))
    status = next((STATUSES[word] for word in words if isinstance(word, str) and word in STATUSES), _UNKNOWN)
    message = error.get("message")
    if status in (400, _UNKNOWN) and isinstance(message, str):
        # Compatible servers report their limits in streams under any kind.
        if _LIMITED_WORDS.search(message, 0, 120):
            return 429
        if _OVERLOADED_WORDS.search(message, 0, 120):
            return 529
    return status


_FINDERS: dict[str, tuple[Callable[[Any], Iterator[tuple[int, Any]]], ...]] = {
    "openai": (_openai,),
    "azure": (_openai,),
    "groq": (_openai,),
    "mistral": (_openai,),
    "anthropic": (_anthropic,),
    "gemini": (_gemini,),
    "github": (_graphql,),
    "shopify": (_graphql,),
    "telegram": (),
    "slack": (),
    "discord": (),
}
