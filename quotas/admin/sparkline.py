"""A small chart in a row of a table: the points of one line."""

from __future__ import annotations

from collections.abc import Sequence


def points(values: Sequence[float], width: float = 80.0, height: float = 18.0) -> str:
    """A sparkline's points; empty without any value above 0."""
    top = max(values, default=0)
    if not top:
        return ""
    step = width / max(len(values) - 1, 1)
    return " ".join(
        f"{index * step:.1f},{height - 1 - value / top * (height - 2):.1f}" for index, value in enumerate(values)
    )
