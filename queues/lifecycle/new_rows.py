"""Rows of new jobs: the values that each job brings, with one value for all in every other column."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any

from django.db import connection, models

from queues.lifecycle.sql import quoted
from queues.models import Job
from queues.sql import MAX_PARAMETERS, array_type, slices, written

REQUEST = (
    "uid", "project_id", "queue_id", "type", "payload", "pool", "model", "priority", "user", "keys", "cost",
    "max_attempts", "timeout", "delivery_mode", "callback_url", "idempotency_key", "request_hash", "ordering_key",
)  # fmt: skip
"""Attributes of every new job, which are named as their columns."""
_NAMES = (*REQUEST, "batch_id", "unique_key", "unique_until", "status", "stage", "not_before", "reason", "created_at")
_JSON = tuple(position for position, name in enumerate(_NAMES) if name in ("payload", "keys", "cost"))
_MOMENTS = tuple(
    position for position, name in enumerate(_NAMES) if name in ("unique_until", "not_before", "created_at")
)
_values_of = itemgetter(*_NAMES)
_request_of = itemgetter(*REQUEST)


def request_of(job: Job) -> list[Any]:
    """The values of `REQUEST`, as statements take them."""
    return _with_json(list(_request_of(job.__dict__)))


def row_of(job: Job) -> tuple[Any, ...]:
    """The values of a job that is no row yet, as `insert` takes them: converted before anything is locked."""
    values = _with_json(list(_values_of(job.__dict__)))
    if connection.vendor != "postgresql":
        for position in _MOMENTS:
            if values[position] is not None:
                values[position] = written(values[position])
    return tuple(values)


def _with_json(values: list[Any]) -> list[Any]:
    for position in _JSON:
        value = values[position]
        values[position] = json.dumps(value) if value else "{}"
    return values


def insert(jobs: Sequence[Job], rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert new jobs, their values as `row_of` makes them, and set their keys. Inside a transaction."""
    if not rows:
        return
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            keys: dict[str, int] = {}
            for some in slices(rows, MAX_PARAMETERS):
                cursor.execute(_insert_arrays(), list(map(list, zip(*some, strict=True))))
                keys.update(cursor.fetchall())
            for job in jobs:
                job.pk = keys[job.uid]
            return
        cursor.executemany(_insert_each(), rows)
        # There is one writer at a time, and the keys of a table that counts them are in a row.
        cursor.execute("SELECT last_insert_rowid()")
        (last,) = cursor.fetchone()
    for key, job in enumerate(jobs, last - len(jobs) + 1):
        job.pk = key


@lru_cache(maxsize=1)
def _insert_each() -> str:
    columns, literals = constants(_NAMES)
    values = ", ".join([*["%s"] * len(_NAMES), *literals])
    return f'INSERT INTO "queues_job" ({", ".join(map(quoted, (*_NAMES, *columns)))}) VALUES ({values})'  # noqa: S608


@lru_cache(maxsize=1)
def _insert_arrays() -> str:
    columns, literals = constants(_NAMES)
    arrays = ", ".join(f"%s::{array_type(Job, name)}[]" for name in _NAMES)
    given = ", ".join(f"g_{name}" for name in _NAMES)
    return (
        f'INSERT INTO "queues_job" ({", ".join(map(quoted, (*_NAMES, *columns)))})'  # noqa: S608
        f' SELECT {", ".join((given, *literals))} FROM unnest({arrays}) AS given({given}) RETURNING "uid", "id"'
    )


def constants(given: Sequence[str]) -> tuple[list[str], list[str]]:
    """The columns that are not `given`, with their values in SQL. Those that are NULL are left out."""
    found = [
        (field.attname, _literal(field))
        for field in Job._meta.concrete_fields
        if not field.primary_key and field.attname not in given and field.get_default() is not None
    ]
    return [name for name, _ in found], [literal for _, literal in found]


def _literal(field: models.Field[Any, Any]) -> str:
    """The default of the column in SQL."""
    value = field.get_default()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, str) and value.replace("_", "").isalnum() or value == "":
        return f"'{value}'"
    raise TypeError(f"New jobs have no value for {field.attname}.")
