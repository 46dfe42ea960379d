"""SQL statements over many values, and transactions that are repeated after a deadlock.

Long lists travel in parts or as one value; many rows as one array for each column (PostgreSQL) or as one JSON document
(SQLite), so that the cost of a statement does not grow by a round trip, a parse and a plan for each row.
"""

from __future__ import annotations

import functools
import json
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, ParamSpec, TypeVar

from django.db import OperationalError, connection
from django.db.models import Field, Model
from django.db.models.expressions import RawSQL

from quotas import events

T = TypeVar("T")
MAX_PARAMETERS = 500
TURN_LENGTH = 0.002
TURN_PAUSE = 0.0002
"""Seconds."""


def slices(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """`items` in order, in parts of up to `size`."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def in_turns(items: Iterable[T]) -> Iterator[T]:
    """`items`, with a short pause after every 2 ms, so that work on many rows in pure Python lets other threads of its
    process run: each of them needs the interpreter again after every statement, and would wait 5 ms each time. Without
    other threads there is no pause."""
    pause_at = time.perf_counter() + TURN_LENGTH
    for item in items:
        yield item
        if time.perf_counter() >= pause_at:
            if threading.active_count() > 1:
                time.sleep(TURN_PAUSE)
            pause_at = time.perf_counter() + TURN_LENGTH


def one_of(texts: Sequence[str]) -> Any:
    """For a look-up `__in`: texts however many, of which more than a few travel as one value."""
    if len(texts) <= MAX_PARAMETERS:
        return texts
    if connection.vendor == "postgresql":
        return RawSQL("SELECT unnest(%s::text[])", [list(texts)])
    return RawSQL("SELECT value FROM json_each(%s)", [json.dumps(texts)])


def written(value: Any) -> str:
    """A moment as the ORM writes it into SQLite."""
    if isinstance(value, datetime):
        if value.tzinfo is UTC:
            return value.isoformat(" ")[: -len("+00:00")]
        return str(value.astimezone(UTC).replace(tzinfo=None))
    raise TypeError(f"{value!r} is no value of a column.")


def array_type(model: type[Model], column: str) -> str:
    """PostgreSQL's type for an array of a column's values. Text of any length, so that one that is too long is refused
    by the assignment and not cut off by a cast."""
    found: Field[Any, Any] = next(one for one in model._meta.concrete_fields if one.column == column)
    kind = found.rel_db_type(connection) if found.primary_key else found.db_type(connection)
    assert kind is not None
    return "text" if kind.startswith("varchar") else kind


def insert_many(model: type[Model], columns: tuple[str, ...], rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert rows, given as their values of the named columns, a few hundred in one statement."""
    for some in slices(rows, MAX_PARAMETERS):
        with connection.cursor() as cursor:
            if connection.vendor == "postgresql":
                cursor.execute(_insert_arrays(model, columns), list(map(list, zip(*some, strict=True))))
            else:
                cursor.execute(_insert_json(model, columns), [json.dumps(some, default=written)])


@functools.lru_cache(maxsize=8)
def _insert_arrays(model: type[Model], columns: tuple[str, ...]) -> str:
    arrays = ", ".join(f"%s::{array_type(model, column)}[]" for column in columns)
    return f'INSERT INTO "{model._meta.db_table}" ({", ".join(columns)}) SELECT * FROM unnest({arrays})'  # noqa: S608


@functools.lru_cache(maxsize=8)
def _insert_json(model: type[Model], columns: tuple[str, ...]) -> str:
    values = ", ".join(f"json_extract(value, '$[{at}]')" for at in range(len(columns)))
    return f'INSERT INTO "{model._meta.db_table}" ({", ".join(columns)}) SELECT {values} FROM json_each(%s)'  # noqa: S608


def started_before(moment: datetime) -> bool:
    """Whether another session has a transaction that writes and began before `moment`: what it has written is not seen yet. On
    SQLite there is one writer at a time, and the caller sees all that the one before has written."""
    if connection.vendor != "postgresql":
        return False
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            " AND backend_xid IS NOT NULL AND xact_start < %s)",
            [moment],
        )
        return bool(cursor.fetchone()[0])


P = ParamSpec("P")
R = TypeVar("R")

MAX_TRIES = 5
DEADLOCK_STATES = frozenset({"40P01", "40001"})
"""PostgreSQL's `deadlock_detected` and `serialization_failure`. On SQLite writers come one at a time."""


def is_deadlock(error: OperationalError) -> bool:
    return getattr(error.__cause__, "sqlstate", None) in DEADLOCK_STATES


def retry_after_deadlock(act: Callable[P, R]) -> Callable[P, R]:
    """Rows are locked in one order everywhere (projects, jobs by id, batches, queues), so that deadlocks are rare; a
    job that waits for others may still be locked from two sides. Nothing was written then, and the call is repeated.
    Inside a transaction of the caller's own the error is the caller's."""

    @functools.wraps(act)
    def acting(*args: P.args, **kwargs: P.kwargs) -> R:
        if connection.in_atomic_block:
            return act(*args, **kwargs)
        for turn in range(1, MAX_TRIES + 1):
            try:
                return act(*args, **kwargs)
            except OperationalError as error:
                if turn == MAX_TRIES or not is_deadlock(error):
                    raise
                events.emit(events.DeadlockRetried(act.__name__, turn))
                time.sleep(random.uniform(0.0, 0.02 * turn))
        raise AssertionError("not reached")

    return acting
