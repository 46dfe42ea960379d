"""Numbers and durations as providers write them, in strict ASCII.

Python's own `int` and `float` take `1_000`, full-width digits, `nan` and `1e400`; none of these is a number here.
Whatever cannot be read is None: not known.
"""

from __future__ import annotations

import re

from quotas.engine.costs import MAX_COST

_DECIMAL = re.compile(r"([0-9]{1,19})(?:\.[0-9]{1,18})?")
_GO_PART = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,12})?)(ns|us|µs|ms|d|h|m|s)")
_GO_DURATION = re.compile(r"(?:[0-9]{1,9}(?:\.[0-9]{1,12})?(?:ns|us|µs|ms|d|h|m|s)){1,6}")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def whole(value: object) -> int | None:
    """A count from 0 to 2**53 - 1; a fraction of zeros (`100.0`) is allowed."""
    number = decimal(value)
    if number is None or number != int(number) or number > MAX_COST:
        return None
    return int(number)


def decimal(value: object) -> float | None:
    """A finite number from 0, given as text or as a JSON number; booleans are none."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        return float(value) if 0 <= value <= 1e19 else None
    if isinstance(value, str) and _DECIMAL.fullmatch(value.strip(" \t")):
        return float(value.strip(" \t"))
    return None


def signed(value: object) -> float | None:
    """A finite number, which may be negative, given as text or as a JSON number."""
    if isinstance(value, str) and value.strip(" \t").startswith("-"):
        number = decimal(value.strip(" \t")[1:])
        return None if number is None else -number
    if isinstance(value, int | float) and not isinstance(value, bool) and value < 0:
        return max(float(value), -1e19) if value > -1e300 else None
    return decimal(value)


def go_duration(text: str) -> float | None:
    """Seconds of a Go duration (`6m0s`, `2m59.56s`, `12ms`, `1h30m`; also days)."""
    text = text.strip(" \t")
    if not _GO_DURATION.fullmatch(text):
        return None
    return round(sum(float(number) * _SECONDS[unit] for number, unit in _GO_PART.findall(text)), 9)
