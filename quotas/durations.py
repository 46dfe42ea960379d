"""Durations as people write them: `500ms`, `30s`, `5m`, `1h`, `7d`, or a number of seconds."""

from __future__ import annotations

import math
import re
from typing import Any

UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_FORM = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)", re.ASCII)
HELP = "a duration such as 500ms, 30s, 5m, 1h or 7d, or a number of seconds"


class BadDuration(ValueError):
    """Not a duration: write 500ms, 30s, 5m, 1h or 7d, or a number of seconds."""


def parse(value: Any) -> float:
    """Seconds. Raises `BadDuration` for anything that is not finite, not from 0 up, or of another form."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value) or value < 0:
            raise BadDuration(f"{value} is not {HELP}")
        return float(value)
    found = _FORM.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise BadDuration(f"{value!r} is not {HELP}")
    number, unit = float(found[1]), found[2]
    return number / 1000 if unit == "ms" else number * UNITS[unit]


def render(seconds: float) -> str | float:
    """The shortest form that `parse` reads back to exactly `seconds`; the number itself where there is none."""
    for unit in ("d", "h", "m", "s"):
        count = seconds / UNITS[unit]
        if count >= 1 and count == int(count) and count < 10**12 and parse(f"{int(count)}{unit}") == seconds:
            return f"{int(count)}{unit}"
    millis = round(seconds * 1000)
    if 0 < millis < 10**12 and parse(f"{millis}ms") == seconds:
        return f"{millis}ms"
    return seconds
