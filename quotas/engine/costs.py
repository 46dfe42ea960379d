"""What a cost is: whole units by name, such as {"requests": 1, "tokens": 800}."""

from __future__ import annotations

from collections.abc import Mapping

MAX_COST = 2**53 - 1
"""The greatest number that Lua and JSON keep exactly."""
MAX_UNITS = 16
"""Units of one cost."""
MAX_UNIT_NAME = 32
"""Characters."""
COUNT_RULE = "a whole number from 0 to 2^53 - 1"


def is_count(value: object) -> bool:
    """Whether it is a whole number from 0 to 2^53 - 1; `True` is none."""
    return type(value) is int and 0 <= value <= MAX_COST


def is_unit(name: object) -> bool:
    """Whether it may name a unit: 1 to 32 printable characters."""
    return isinstance(name, str) and 0 < len(name) <= MAX_UNIT_NAME and name.isprintable()


def check_amounts(amounts: Mapping[str, object]) -> None:
    """Raises `ValueError` unless every amount is a count."""
    for unit, amount in amounts.items():
        if not is_count(amount):
            raise ValueError(f"{unit}: a cost is {COUNT_RULE}, not {amount!r}")
