"""Payloads and results as JSON: whether every database can store a value, and where it can't."""

from __future__ import annotations

import json
from typing import Any

from queues.errors import FieldError, JobError
from quotas.rest.pointers import escape

MAX_DEPTH = 200
"""Levels of nesting: encoders recurse, and one that gives up half-way would turn bad input into a fault."""


_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def mistake_in(value: Any, pointer: str) -> FieldError | None:
    """The first thing in `value` that is no JSON, or that SQL can't store: NaN, NUL, half surrogates, other types.

    What comes over HTTP was parsed strictly and passes at once; values from Python and from files are read closely.
    """
    try:
        text = _encode(value)
        text.encode()
    except (TypeError, ValueError, RecursionError):
        return _first(value, pointer) or FieldError(pointer, "Must be JSON.")
    if "\\u0000" in text or text.count("{") + text.count("[") > MAX_DEPTH:
        return _first(value, pointer)
    return None


def _first(value: Any, pointer: str) -> FieldError | None:
    try:
        return _look(value, pointer, 0)
    except _TooDeep:
        return FieldError(pointer, f"Must have at most {MAX_DEPTH} levels.")


class _TooDeep(Exception):
    pass


def _look(value: Any, pointer: str, depth: int) -> FieldError | None:
    if depth > MAX_DEPTH:
        raise _TooDeep
    if isinstance(value, dict):
        for name, inner in value.items():
            if not isinstance(name, str) or not _is_text(name):
                return FieldError(pointer, "A member's name must be valid Unicode without NUL.")
            found = _look(inner, f"{pointer}/{escape(name)}", depth + 1)
            if found is not None:
                return found
    elif isinstance(value, list | tuple):
        for position, inner in enumerate(value):
            found = _look(inner, f"{pointer}/{position}", depth + 1)
            if found is not None:
                return found
    elif isinstance(value, str):
        if not _is_text(value):
            return FieldError(pointer, "Must be valid Unicode without NUL.")
    elif isinstance(value, float):
        if value - value != 0:
            return FieldError(pointer, "Must be a finite number.")
    elif not isinstance(value, int | None):
        return FieldError(pointer, f"Must be JSON; this is a {type(value).__name__}.")
    return None


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\x00" not in text


def storable(text: str) -> str:
    """`text` as SQL can store it: PostgreSQL knows no NUL, and no database knows half a surrogate pair."""
    if text.isascii() and "\x00" not in text:
        return text
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


def kept(value: Any) -> Any:
    """`value` without what databases can't store: NaN and infinities become null, strange text is replaced,
    what is nested too deeply is cut off. For what comes from outside when it is too late to refuse it."""
    return value if value is None or mistake_in(value, "") is None else _kept(value, 0)


def _kept(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, dict):
        return (
            {storable(str(name)): _kept(inner, depth + 1) for name, inner in value.items()}
            if depth < MAX_DEPTH
            else "…"
        )
    if isinstance(value, list | tuple):
        return [_kept(inner, depth + 1) for inner in value] if depth < MAX_DEPTH else "…"
    if isinstance(value, float) and value - value != 0:
        return None
    return value


MAX_RESULT = 256 * 1024
"""Bytes of JSON that a result may have."""


def plain(value: Any) -> Any:
    """The result as JSON; anything else is said to be the task's mistake."""
    if value is None:
        return None
    try:
        text = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise JobError(f"The task's result is no JSON: {error}", category="code") from None
    if len(text) > MAX_RESULT:
        raise JobError(f"The task's result has more than {MAX_RESULT:,} bytes.", category="code")
    return json.loads(text)
