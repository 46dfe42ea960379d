"""Long lists in statements: in parts, or as one value."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

from django.db import connection
from django.db.models.expressions import RawSQL

T = TypeVar("T")
FEW = 500
TURN = 25
PAUSE = 0.0002
"""Seconds."""


def slices(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """`items` in order, in parts of up to `size`."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def in_turns(items: Iterable[T]) -> Iterator[T]:
    """`items`, with a short pause after every few, so that work on many rows in pure Python lets other threads of its
    process run: each of them asks for the interpreter again after every statement, and would wait 5 ms each time."""
    for number, item in enumerate(items, 1):
        yield item
        if number % TURN == 0:
            time.sleep(PAUSE)


def one_of(texts: Sequence[str]) -> Any:
    """For a look-up `__in`: texts however many, of which more than a few travel as one value."""
    if len(texts) <= FEW:
        return texts
    if connection.vendor == "postgresql":
        return RawSQL("SELECT unnest(%s::text[])", [list(texts)])
    return RawSQL("SELECT value FROM json_each(%s)", [json.dumps(texts)])
