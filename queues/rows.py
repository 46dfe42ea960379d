"""Reading rows that are about to be written, by a statement whose text is made once.

Composing a query over all of a job's columns costs the ORM more than SQL takes to answer it, and a busy worker asks the
same thing a hundred times a second.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Any

from django.db import connection

from queues.models import Job
from queues.states import Stage


@lru_cache(maxsize=512)
def _statement(columns: tuple[str, ...], count: int, stage: Stage, lock: bool) -> str:
    quoted = ", ".join(f'"{column}"' for column in columns)
    marks = ", ".join(["%s"] * count)
    return (
        f'SELECT {quoted} FROM "queues_job" WHERE "id" IN ({marks}) AND "stage" = {int(stage)} ORDER BY "id"'  # noqa: S608
        f"{' FOR UPDATE' if lock else ''}"
    )


def locked(columns: Sequence[str], ids: Collection[int], stage: Stage) -> list[tuple[Any, ...]]:
    """Raw columns of those of the jobs `ids` that are in `stage`, locked until the transaction ends, by id."""
    if not ids:
        return []
    with connection.cursor() as cursor:
        lock = connection.features.has_select_for_update
        cursor.execute(_statement(tuple(columns), len(ids), stage, lock), list(ids))
        return cursor.fetchall()


_FIELDS = Job._meta.concrete_fields
_NAMES = [field.attname for field in _FIELDS]
_COLUMNS = [str(field.column) for field in _FIELDS]


def locked_jobs(ids: Collection[int], stage: Stage) -> list[Job]:
    """The same, as whole jobs."""
    converters = _converters(connection.vendor)
    jobs = []
    for row in locked(_COLUMNS, ids, stage):
        values = list(row)
        for position, expression, convert in converters:
            for one in convert:
                values[position] = one(values[position], expression, connection)
        jobs.append(Job.from_db(connection.alias, _NAMES, values))
    return jobs


@lru_cache(maxsize=2)
def _converters(vendor: str) -> list[tuple[int, Any, list[Any]]]:
    """What the ORM does to values on their way out of this kind of database: position, column, functions."""
    found = []
    for position, field in enumerate(_FIELDS):
        column = field.get_col(Job._meta.db_table)
        convert = [*connection.ops.get_db_converters(column), *column.get_db_converters(connection)]
        if convert:
            found.append((position, column, convert))
    return found
