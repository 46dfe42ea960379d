"""Long lists in parts: a statement can name so many values only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def slices(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """`items` in order, in parts of up to `size`."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
