"""Histograms, from counts per bucket to the running totals that Prometheus wants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def cumulative(bounds: Sequence[float], counts: Mapping[int | str, float]) -> list[tuple[str, float]]:
    """`counts` by the index of the bound that is not exceeded; beyond the last one: `len(bounds)`."""
    total = 0.0
    buckets = []
    for index, bound in enumerate([*map(str, bounds), "+Inf"]):
        total += counts.get(index, 0.0)
        buckets.append((bound, total))
    return buckets
