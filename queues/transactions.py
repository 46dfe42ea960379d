"""Transactions beside others: repeated after a deadlock, and pauses in which other threads and sessions run."""

from __future__ import annotations

import functools
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import ParamSpec, TypeVar

from django.db import OperationalError, connection

from quotas import events

T = TypeVar("T")
TURN_LENGTH = 0.002
TURN_PAUSE = 0.0002
"""Seconds."""


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
