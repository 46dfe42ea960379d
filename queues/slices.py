"""Long lists in statements: in parts, or as one value."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from django.db import connection
from django.db.models.expressions import RawSQL

T = TypeVar("T")
FEW = 500


def slices(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """`items` in order, in parts of up to `size`."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def one_of(texts: Sequence[str]) -> Any:
    """For a look-up `__in`: texts however many, of which more than a few travel as one value."""
    if len(texts) <= FEW:
        return texts
    if connection.vendor == "postgresql":
        return RawSQL("SELECT unnest(%s::text[])", [list(texts)])
    return RawSQL("SELECT value FROM json_each(%s)", [json.dumps(texts)])
