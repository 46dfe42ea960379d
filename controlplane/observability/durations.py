"""Durations as numbers per bucket, which add up over times, and percentiles of them."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping

BOUNDS = tuple(round(size * part, 3) for size in (0.01, 0.1, 1, 10, 100, 1000, 10_000, 100_000) for part in (1, 2, 5))
"""Upper bounds in seconds, from 10 ms to almost six days."""


def bucketed(seconds: Iterable[float]) -> dict[str, int]:
    """Numbers by the bucket's index. The keys are strings, as in JSON."""
    return dict(Counter(str(min(bisect_left(BOUNDS, max(value, 0.0)), len(BOUNDS) - 1)) for value in seconds))


def added(several: Iterable[Mapping[str, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for each in several:
        total.update(each)
    return total


def percentile(counts: Mapping[str, int], share: float) -> float | None:
    """The duration that this share of them does not exceed, in the precision of the buckets; None if there are none."""
    total = sum(counts.values())
    if not total:
        return None
    wanted, passed = share * total, 0
    for index, bound in enumerate(BOUNDS):
        count = counts.get(str(index), 0)
        if count and passed + count >= wanted:
            lower = BOUNDS[index - 1] if index else 0.0
            return round(lower + (bound - lower) * max(0.0, wanted - passed) / count, 3)
        passed += count
    return BOUNDS[-1]
