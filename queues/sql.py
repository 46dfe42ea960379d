"""SQL statements: long lists in parts or as one value, and transactions that are repeated after a deadlock."""

from __future__ import annotations

import functools
import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ParamSpec, TypeVar

import structlog
from django.db import OperationalError, connection
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


log = structlog.get_logger(__name__)

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
                log.info("sql.deadlock", act=act.__name__, turn=turn)
                time.sleep(random.uniform(0.0, 0.02 * turn))
        raise AssertionError("not reached")

    return acting
