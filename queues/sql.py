"""SQL statements: long lists in parts or as one value, and transactions that are repeated after a deadlock."""

from __future__ import annotations

import functools
import json
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ParamSpec, TypeVar

from django.db import OperationalError, connection
from django.db.models.expressions import RawSQL

from quotas import events

T = TypeVar("T")
FEW = 500
TURN = 0.002
PAUSE = 0.0002
"""Seconds."""


def slices(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """`items` in order, in parts of up to `size`."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def in_turns(items: Iterable[T]) -> Iterator[T]:
    """`items`, with a short pause after every 2 ms, so that work on many rows in pure Python lets other threads of its
    process run: each of them needs the interpreter again after every statement, and would wait 5 ms each time."""
    pause_at = time.perf_counter() + TURN
    for item in items:
        yield item
        if time.perf_counter() >= pause_at:
            time.sleep(PAUSE)
            pause_at = time.perf_counter() + TURN


def one_of(texts: Sequence[str]) -> Any:
    """For a look-up `__in`: texts however many, of which more than a few travel as one value."""
    if len(texts) <= FEW:
        return texts
    if connection.vendor == "postgresql":
        return RawSQL("SELECT unnest(%s::text[])", [list(texts)])
    return RawSQL("SELECT value FROM json_each(%s)", [json.dumps(texts)])


P = ParamSpec("P")
R = TypeVar("R")

TRIES = 5
STATES = frozenset({"40P01", "40001"})
"""PostgreSQL's `deadlock_detected` and `serialization_failure`. On SQLite writers come one at a time."""


def is_deadlock(error: OperationalError) -> bool:
    return getattr(error.__cause__, "sqlstate", None) in STATES


def retry_after_deadlock(act: Callable[P, R]) -> Callable[P, R]:
    """Rows are locked in one order everywhere (projects, jobs by id, batches, queues), so that deadlocks are rare; a
    job that waits for others may still be locked from two sides. Nothing was written then, and the call is repeated.
    Inside a transaction of the caller's own the error is the caller's."""

    @functools.wraps(act)
    def acting(*args: P.args, **kwargs: P.kwargs) -> R:
        if connection.in_atomic_block:
            return act(*args, **kwargs)
        for turn in range(1, TRIES + 1):
            try:
                return act(*args, **kwargs)
            except OperationalError as error:
                if turn == TRIES or not is_deadlock(error):
                    raise
                events.emit(events.DeadlockRetried(act.__name__, turn))
                time.sleep(random.uniform(0.0, 0.02 * turn))
        raise AssertionError("not reached")

    return acting
