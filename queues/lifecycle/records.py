"""Rows that record what happened to a job: its attempts, and the steps of its timeline.

They are inserted without the ORM, whose objects cost more than the rows.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

from django.db import connection
from django.db.models import Model

from queues.lifecycle.arrays import array_type, written
from queues.models import Attempt, Transition


class AttemptRow(NamedTuple):
    """A row of `Attempt`; the names are those of its columns."""

    job_id: int
    number: int
    delivery: int
    outcome: str
    counted: bool
    category: str
    account: str
    status: int | None
    error: str
    traceback: str
    worker: str
    ready_at: datetime | None
    dispatched_at: datetime | None
    started_at: datetime | None
    ended_at: datetime


class StepRow(NamedTuple):
    """A row of `Transition`."""

    job_id: int
    at: datetime
    state: str
    reason: str


ROWS_AT_ONCE = 500


def insert_attempts(rows: Sequence[AttemptRow]) -> None:
    _insert_many(Attempt, AttemptRow._fields, rows)


def insert_steps(rows: Sequence[StepRow]) -> None:
    _insert_many(Transition, StepRow._fields, rows)


def _insert_many(model: type[Model], columns: tuple[str, ...], rows: Sequence[tuple[Any, ...]]) -> None:
    for start in range(0, len(rows), ROWS_AT_ONCE):
        some = rows[start : start + ROWS_AT_ONCE]
        with connection.cursor() as cursor:
            if connection.vendor == "postgresql":
                cursor.execute(_insert_arrays(model, columns), list(map(list, zip(*some, strict=True))))
            else:
                cursor.execute(_insert_json(model, columns), [json.dumps(some, default=written)])


@lru_cache(maxsize=8)
def _insert_arrays(model: type[Model], columns: tuple[str, ...]) -> str:
    arrays = ", ".join(f"%s::{array_type(model, column)}[]" for column in columns)
    return f'INSERT INTO "{model._meta.db_table}" ({", ".join(columns)}) SELECT * FROM unnest({arrays})'  # noqa: S608


@lru_cache(maxsize=8)
def _insert_json(model: type[Model], columns: tuple[str, ...]) -> str:
    values = ", ".join(f"json_extract(value, '$[{at}]')" for at in range(len(columns)))
    return f'INSERT INTO "{model._meta.db_table}" ({", ".join(columns)}) SELECT {values} FROM json_each(%s)'  # noqa: S608
