"""Priorities from 0 (first) to 9 (last), by number, by name and in bands."""

from __future__ import annotations

PRIORITIES = {"high": 1, "normal": 5, "low": 8}
_BANDS = ("high",) * 4 + ("normal",) * 3 + ("low",) * 3
_FIRST_PAUSED = {"low": 7, "normal": 4, "all": 0}


def rank(priority: int | str) -> int:
    """A priority by its name or number, 0 (first) to 9. Raises `ValueError`."""
    found = PRIORITIES.get(priority) if isinstance(priority, str) else priority
    if type(found) is not int or not 0 <= found <= 9:
        raise ValueError(f"a priority is high, normal, low or a whole number from 0 to 9, not {priority!r}")
    return found


def band(priority: int) -> str:
    """`high` for 0 to 3, `normal` for 4 to 6, `low` for 7 to 9."""
    return _BANDS[priority]


def is_paused(pause: str, priority: int) -> bool:
    """Whether a pause threshold applies to the priority: `low` to its band, `normal` to that and `low`, `all` to all."""
    first = _FIRST_PAUSED.get(pause)
    return first is not None and priority >= first
