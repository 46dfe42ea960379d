"""Spans of time in few letters."""

from __future__ import annotations

from datetime import timedelta


def spell(seconds: float) -> str:
    """A setting, exactly: `90 s`, `1 h`, `7 d`; whole units where they fit."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"


def spell_span(span: timedelta) -> str:
    """What went by or is left, roughly: `250 ms`, `48 s`, `12 min`, `3 h`, `2 d`."""
    exact = max(0.0, span.total_seconds())
    if 0 < exact < 0.9995:
        return f"{max(1, round(exact * 1000))} ms"
    seconds = round(exact)
    for size, unit in ((172_800, "d"), (7_200, "h"), (120, "min")):
        if seconds >= size:
            return f"{seconds // (size // 2)} {unit}"
    return f"{seconds} s"
