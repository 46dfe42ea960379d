"""Turns an exception of a task into the result of its attempt.

The exception is user's code, too: its message, its class and its attributes may raise, be of any size, or be of a wrong
type.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from typing import Any

from queues.errors import CATEGORIES, JobCancelled, JobError, JobTimedOut, hint_of
from queues.registry import RunResult
from queues.states import AttemptOutcome
from quotas.engine.categories import Category
from quotas.engine.types import CallOutcome

LONGEST_TEXT = 64 * 1024
"""Characters that are read. Far more than are kept: a secret that this cut parts is beyond what is shown."""


def message_of(error: BaseException) -> str:
    """Its message; a note in brackets if it can't be shown."""
    return _text(lambda: str(error), "message")[:LONGEST_TEXT]


def described(error: BaseException) -> str:
    """Its class and its message, as in the last line of a traceback."""
    return f"{_text(lambda: str(type(error).__name__), 'class')}: {message_of(error)}"


def trace_of(error: BaseException) -> str:
    """Its traceback; the end of it where it is very long."""
    return _text(lambda: "".join(traceback.format_exception(error)), "traceback")[-LONGEST_TEXT:]


def _text(make: Callable[[], str], what: str) -> str:
    try:
        return str.__str__(make())  # a plain copy: `str()` may return a subclass with methods of its own
    except (JobTimedOut, JobCancelled):
        raise
    except BaseException as second:  # noqa: BLE001 - `__str__` of a task's exception may raise anything
        return f"[its {what} can't be shown: {type.__getattribute__(type(second), '__name__')}]"


def result_of(error: Exception, *, pooled: bool, actual: Mapping[str, int]) -> RunResult:
    """How an attempt ended that `error` has ended: as a `JobError` says, any other exception is `code`."""
    if not isinstance(error, JobError):
        upstream = CallOutcome("ok") if pooled else None
        return RunResult(
            AttemptOutcome.FAILED,
            category="code",
            error=described(error),
            traceback=trace_of(error),
            upstream=upstream,
            actual=actual,
        )
    category, hint, message = _category(error), hint_of(getattr(error, "retry_after", None)), message_of(error)
    limited = Category.of(category).is_limit
    return RunResult(
        AttemptOutcome.RATE_LIMITED if limited else AttemptOutcome.FAILED,
        category=category,
        error=message,
        retry_after=hint,
        counted=not limited,
        upstream=CallOutcome(category, retry_after=hint, error=message) if pooled else None,
        actual=actual,
    )


def _category(error: JobError) -> str:
    """Checked again: a subclass, or code that caught the error and raised it again, may have set it."""
    category: Any = getattr(error, "category", None)
    return category if isinstance(category, str) and category in CATEGORIES else "code"
