"""Charts as coordinates for SVG: stacked bars, lines and bands over the steps of a period."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from controlplane.admin.periods import Period
from quotas.moments import spell_moment

WIDTH = 600.0


def nice(top: float) -> int:
    """The next number above that is easy to read on an axis: 2, 5 or 10 times a power of ten."""
    size = 10
    while size < top:
        size *= 10
    for part in (5, 2):
        if size // part >= top and size // part >= 10:
            return size // part
    return size


def label(start: datetime, period: Period, *, zone: bool = False) -> str:
    return spell_moment(start, "H:i" if period.span.days < 2 else "D d, H:i", zone=zone)


def bars(
    counts: Sequence[Mapping[str, int]],
    kinds: Sequence[str],
    starts: Sequence[datetime],
    period: Period,
    *,
    base: float = 150.0,
    height: float = 150.0,
) -> tuple[list[dict[str, Any]], int]:
    """Bars that stand on the line `base`, stacked in the order of `kinds`, and the number at the top of the axis."""
    top = nice(max([sum(each.values()) for each in counts], default=0))
    step = WIDTH / max(len(counts), 1)
    drawn = []
    for index, (each, start) in enumerate(zip(counts, starts, strict=True)):
        foot = base
        for kind in kinds:
            if count := each.get(kind, 0):
                tall = max(count * height / top, 1.5)
                foot -= tall
                drawn.append(
                    {"x": round(index * step + step * 0.12, 1), "y": round(foot, 1), "width": round(step * 0.76, 1),
                     "height": round(tall, 1), "kind": kind, "title": f"{label(start, period)}: {count:,} {kind}"}
                )  # fmt: skip
    return drawn, top


def line(values: Sequence[float | None], top: float, *, height: float, above: float = 0.0) -> dict[str, Any]:
    """Polylines through the middles of the steps, broken where there is no value, and single points as dots."""
    step = WIDTH / max(len(values), 1)
    runs: list[list[str]] = [[]]
    for index, value in enumerate(values):
        if value is None:
            runs.append([])
            continue
        y = above + height * (1 - max(0.0, min(1.0, value / top if top else 0.0)))
        runs[-1].append(f"{index * step + step / 2:.1f},{y:.1f}")
    return {
        "lines": [" ".join(points) for points in runs if len(points) > 1],
        "dots": [points[0].split(",") for points in runs if len(points) == 1],
    }
