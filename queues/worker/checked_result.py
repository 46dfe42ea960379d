"""Checks the result of a job's run that says more than its value: a task sets parts of it, a user's job type makes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import structlog

from queues import registry
from queues.deliveries import Claimed
from queues.errors import CATEGORIES, hint_of
from queues.registry import RunResult
from queues.states import AttemptOutcome
from queues.task_errors import LONGEST_TEXT, described, trace_of
from queues.worker.failures import code_failure, unknown_call, unused_call
from quotas.engine.costs import COUNT_RULE, is_count
from quotas.engine.dialects.redaction import without
from quotas.engine.types import CallOutcome
from quotas.models.encrypted import CredentialUnreadable

log = structlog.get_logger(__name__)

LONGEST_ERROR, LONGEST_UPSTREAM_ERROR, LONGEST_TRACEBACK = 2000, 300, 20_000
"""Characters that are kept: of a traceback the last ones."""
LONGEST_UNIT = 64
SHORTEST_SECRET = 4
"""Characters: a shorter value of a hidden member would be found in any text."""


def checked(result: Any, claimed: Claimed) -> RunResult:
    """`result` without anything that accounting, SQL or the engine can't use, and without secrets in its texts."""
    if not isinstance(result, RunResult):
        error = f"The job type {claimed.job.type} returned no result but a {type(result).__name__}."
        return _redacted(code_failure(claimed, error), claimed)
    return _redacted(_use_checked(_fields_checked(result, claimed), claimed), claimed)


def failed(claimed: Claimed, error: BaseException) -> RunResult:
    """The result of a job type that has raised `error`."""
    if isinstance(error, CredentialUnreadable):
        return RunResult(AttemptOutcome.FAILED, category="auth", error=str(error), upstream=unused_call(claimed))
    return fault(claimed, error)


def fault(claimed: Claimed, error: BaseException) -> RunResult:
    """A failed attempt by an exception that no job type foresees. Also by `SystemExit` and the like: raised in a
    thread they would end nothing and settle nothing."""
    result = checked(code_failure(claimed, described(error), trace_of(error)), claimed)
    log.error("job.fault", job=claimed.job.uid, type=claimed.job.type, traceback=result.traceback)
    return result


def _fields_checked(result: RunResult, claimed: Claimed) -> RunResult:
    outcome = result.outcome if result.outcome in AttemptOutcome.values else AttemptOutcome.FAILED
    category = result.category if result.category in (*CATEGORIES, "") else "code"
    if outcome == AttemptOutcome.FAILED and not category:
        category = "code"
    upstream = result.upstream if isinstance(result.upstream, CallOutcome) else None
    return replace(
        result,
        outcome=outcome,
        category=category,
        error=_text(result.error),
        traceback=_text(result.traceback),
        status=result.status if type(result.status) is int and 0 <= result.status < 1000 else None,
        retry_after=None if result.retry_after is None else hint_of(result.retry_after),
        counted=bool(result.counted),
        returned=bool(result.returned),
        no_slot=False,  # only the worker itself knows that, and such a return is not counted
        upstream=upstream or unknown_call(claimed),
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _use_checked(result: RunResult, claimed: Claimed) -> RunResult:
    """The result with its true use as whole numbers. A task that says otherwise has a mistake, and fails by it; what
    a provider says that is no such number is left out."""
    use = result.actual
    mistake = mistake_in_use(use)
    if not mistake:
        return replace(result, actual=dict(use))
    good = {name: amount for name, amount in use.items() if not _mistake(name, amount)} if _is_mapping(use) else {}
    if registry.is_trusted(claimed.job.type):
        return replace(result, actual=good)
    return RunResult(AttemptOutcome.FAILED, category="code", error=mistake, upstream=result.upstream, actual=good)


def _is_mapping(use: Any) -> bool:
    return isinstance(use, dict | Mapping)


def mistake_in_use(use: Any) -> str:
    """What is wrong with a job's `actual`, naming the member; empty if it is well."""
    if not _is_mapping(use):
        return f"job.actual must be a mapping of units to whole numbers, not a {type(use).__name__}."
    for name, amount in use.items():
        if mistake := _mistake(name, amount):
            return mistake
    return ""


def _mistake(name: Any, amount: Any) -> str:
    if type(name) is not str or not 0 < len(name) <= LONGEST_UNIT:
        return f"job.actual must have units as its members, not a {type(name).__name__}."
    if not is_count(amount):
        shown = repr(amount)[:40] if type(amount) in (str, int, float, bool, type(None)) else type(amount).__name__
        return f"job.actual[{name!r}] must be {COUNT_RULE}, not {shown}."
    return ""


def _redacted(result: RunResult, claimed: Claimed) -> RunResult:
    """The result with texts as they may be kept. An error may quote the address or a header field of a call, and in it
    the account's credential, or an argument that the task hides: those go first, since half of one would not be
    recognised any more."""
    clean = _redaction(claimed)
    upstream = result.upstream
    if upstream is not None and upstream.error:
        upstream = replace(upstream, error=clean(upstream.error)[:LONGEST_UPSTREAM_ERROR])
    return replace(
        result,
        error=clean(result.error[:LONGEST_TEXT])[:LONGEST_ERROR],
        traceback=clean(result.traceback[-LONGEST_TEXT:])[-LONGEST_TRACEBACK:],
        upstream=upstream,
    )


def _redaction(claimed: Claimed) -> Callable[[str], str]:
    hidden = hidden_values(claimed.job.type, claimed.job.payload)
    of_account = claimed.endpoint.redact if claimed.endpoint else str

    def clean(text: str) -> str:
        return of_account(without(text, hidden)) if text else text

    return clean


def hidden_values(type: str, payload: Mapping[str, Any]) -> list[str]:
    """The texts in those members of the payload that the job's type hides, longest first."""
    found: set[str] = set()
    pending = [payload.get(name) for name in registry.redacted_members(type)]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            pending += value.values()
        elif isinstance(value, list):
            pending += value
        elif isinstance(value, str | int | float) and not isinstance(value, bool):
            found.add(str(value))
    return sorted((text for text in found if len(text) >= SHORTEST_SECRET), key=len, reverse=True)
