"""The provider's answer to an `http.request`: as much as is kept, and what it means for the job and its account."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import urllib3

from queues.registry import RunResult
from queues.states import AttemptOutcome
from quotas.engine import dialects
from quotas.engine.categories import Category
from quotas.upstream.endpoint import AccountEndpoint

KEPT_HEADERS = frozenset(
    {
        "content-type",
        "content-length",
        "date",
        "etag",
        "last-modified",
        "location",
        "retry-after",
        "x-request-id",
        "request-id",
    }
)
MAX_BODY = 256 * 1024
"""Bytes of an answer that are kept."""
MAX_TAIL = 64 * 1024
"""Bytes of the end of a longer answer that are read: streams and long documents report their use there."""
MAX_READ = 32 * 1024 * 1024
"""Bytes of an answer that are read at most to come to its end."""


def read(response: urllib3.BaseHTTPResponse) -> tuple[bytes, bytes]:
    """The beginning of a body, one byte longer than is kept where there is more, and then the body's end.

    An answer that does not end within `MAX_READ` bytes is left there, with its connection, and has no known end.
    """
    head = response.read(MAX_BODY + 1)
    read, tail = len(head), b""
    while len(head) > MAX_BODY and (chunk := response.read(MAX_TAIL)):
        read += len(chunk)
        tail = (tail + chunk)[-MAX_TAIL:]
        if read > MAX_READ:
            response.close()
            return head, b""
    response.release_conn()
    return head, tail


def result_of(
    response: urllib3.BaseHTTPResponse,
    content: bytes,
    payload: Mapping[str, Any],
    lease: AccountEndpoint,
    latency: float,
    project: str | None = None,
    tail: bytes = b"",
) -> RunResult:
    """What the answer makes of the attempt, and of the account's call."""
    status = response.status
    upstream = dialects.read(
        lease.dialect,
        status,
        list(response.headers.items()),
        content,
        settings=lease.settings,
        secrets=[lease.credential],
        latency=latency,
        tail=tail,
    )
    path = str(payload.get("path", "")).partition("?")[0]
    upstream = replace(upstream, target=f"{payload.get('method', 'GET')} {path}")
    answer = _answer(response, content, lease)
    expect = payload.get("expect")
    expected = status in expect if expect else 200 <= status < 300
    actual = dict(upstream.usage)
    # A status that was expected makes a success of what the request was refused for, but not a refusal inside a 2xx.
    kind = Category.of(upstream.category)
    fine = kind in (Category.OK, Category.UNKNOWN) or (kind is Category.VALIDATION and not 200 <= status < 300)
    if expected and fine:
        return RunResult(AttemptOutcome.SUCCEEDED, result=answer, status=status, upstream=upstream, actual=actual)
    category = upstream.category if kind not in (Category.OK, Category.UNKNOWN) else "validation"
    error = f"HTTP {status}" + (f": {lease.redact(upstream.error)}" if upstream.error else "")
    limited = Category.of(category).is_limit
    # A refused credential is the account's trouble and not the job's, as long as there is another account.
    elsewhere = upstream.refuses_account and lease.has_another(project)
    return RunResult(
        AttemptOutcome.RATE_LIMITED if limited else AttemptOutcome.FAILED,
        result=answer,
        category=category,
        error=error[:2000],
        status=status,
        retry_after=_bounded(upstream.retry_after, lease),
        counted=not limited and not elsewhere,
        upstream=upstream,
        actual=actual,
    )


def _bounded(hint: float | None, lease: AccountEndpoint) -> float | None:
    """A provider's hint, at most the longest cooldown of its pool."""
    return hint if hint is None else min(hint, lease.config.spec.cooldown_max)


def _answer(response: urllib3.BaseHTTPResponse, content: bytes, lease: AccountEndpoint) -> dict[str, Any]:
    """The provider's answer as a job's result, without the credential: status, some header fields, the body."""
    text = lease.redact(content[:MAX_BODY].decode("utf-8", "replace"))
    headers = {name.lower(): value for name, value in response.headers.items()}
    answer: dict[str, Any] = {
        "status": response.status,
        "headers": {name: lease.redact(value) for name, value in headers.items() if _is_kept(name)},
        "body": text,
    }
    if len(content) > MAX_BODY:
        answer["truncated"] = True
    elif "json" in response.headers.get("content-type", ""):
        with suppress(ValueError, RecursionError):  # it stays text
            answer["body"] = json.loads(text)
    return answer


def _is_kept(name: str) -> bool:
    return name in KEPT_HEADERS or "ratelimit" in name or "rate-limit" in name
