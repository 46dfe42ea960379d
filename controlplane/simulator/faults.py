"""Simulated faults, for all keys or for one."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any


class BadFault(ValueError):
    """A fault that cannot be set; the message names the member."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault as posted. Missing members have no effect. Unknown members and wrong types are refused."""

    status: int | None = None
    """Answer with this status instead of doing the work; nothing is charged."""
    rate: float = 1.0
    """The share of requests that are affected, 0 to 1."""
    key: str | None = None
    """Only requests with this key; None: with any."""
    latency: float = 0.0
    """Additional seconds."""
    headers: dict[str, str | None] | None = None
    """Header fields to set; null removes one."""
    drop: bool = False
    """Do the work, then reset the connection in the middle of the answer's body."""
    invalid_key: str | None = None
    """This key is answered as the provider answers a revoked one."""
    clock_skew: float = 0.0
    """Seconds by which the provider's clock is ahead: `Date` and absolute resets."""
    missing_headers: bool = False
    """No limit headers, no `Retry-After`, no `Date`."""
    body: str | None = None
    """Answer with this body; `{credential}` in it is replaced by the key, like careless providers that repeat it."""

    pace: float = 0.0
    """Seconds between the events of a stream, which is sent in chunks then."""
    break_after: int | None = None
    """Reset a stream's connection after so many events."""
    event: str | None = None
    """With `break_after`: send this as a last event and end the stream properly, as providers report late errors."""

    @classmethod
    def parse(cls, given: Any) -> Fault:
        """Check one JSON object; BadFault names the member that is wrong."""
        if not isinstance(given, dict):
            raise BadFault("a fault is a JSON object")
        unknown = set(given) - {f.name for f in fields(cls)}
        if unknown:
            raise BadFault(f"unknown member {sorted(unknown)[0]!r}")
        for name, check in _CHECKS.items():
            if name in given and not check(given[name]):
                raise BadFault(f"{name}: {given[name]!r} is not allowed")
        return cls(**{name: value for name, value in given.items() if value is not None})

    @property
    def slot(self) -> tuple[str, str]:
        """Faults of one slot replace each other; others add up."""
        if self.invalid_key is not None:
            return ("invalid_key", self.invalid_key)
        return ("key", self.key or "")

    def hits(self, key: str) -> bool:
        """Whether the fault is about this key (before `rate` is drawn)."""
        if self.invalid_key is not None:
            return self.invalid_key == key
        return self.key is None or self.key == key


def _number(low: float, high: float) -> Any:
    return lambda value: (
        value is None
        or (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and math.isfinite(value)
            and low <= value <= high
        )
    )


def _text(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _flag(value: Any) -> bool:
    return value is None or isinstance(value, bool)


def _headers(value: Any) -> bool:
    if value is None:
        return True
    return isinstance(value, dict) and all(
        item is None or (isinstance(item, str) and "\n" not in item and "\r" not in item) for item in value.values()
    )


_CHECKS: dict[str, Any] = {
    "status": lambda value: value is None or (type(value) is int and 200 <= value <= 599),
    "rate": _number(0, 1),
    "key": _text,
    "latency": _number(0, 3600),
    "headers": _headers,
    "drop": _flag,
    "invalid_key": _text,
    "clock_skew": _number(-1e9, 1e9),
    "missing_headers": _flag,
    "body": _text,
    "pace": _number(0, 3600),
    "break_after": lambda value: value is None or (type(value) is int and value >= 0),
    "event": _text,
}
