"""Priorities by name and number."""

from __future__ import annotations

PRIORITIES = {"high": 1, "normal": 5, "low": 8}


def rank(priority: int | str) -> int:
    """A priority by its name or number, 0 (first) to 9. Raises `ValueError`."""
    found = PRIORITIES.get(priority) if isinstance(priority, str) else priority
    if type(found) is not int or not 0 <= found <= 9:
        raise ValueError(f"a priority is high, normal, low or a whole number from 0 to 9, not {priority!r}")
    return found
