"""Locks and writes rows of jobs by SQL statements that are composed once, from lists of column names.

Composing a query over all of a job's columns costs the ORM more than SQL takes to answer it, and a busy worker asks the
same thing a hundred times a second.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Any

from django.db import connection, models

from queues.models import Job
from queues.states import Stage


def _quoted(column: str) -> str:
    return f'"{column}"'


@lru_cache(maxsize=512)
def _statement(columns: tuple[str, ...], count: int, stage: Stage, lock: bool) -> str:
    quoted = ", ".join(map(_quoted, columns))
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
        rows: list[tuple[Any, ...]] = cursor.fetchall()
        return rows


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


_NEW = [field for field in _FIELDS if not field.primary_key]
_INSERT = (
    f'INSERT INTO "queues_job" ({", ".join(_quoted(str(field.column)) for field in _NEW)}) '  # noqa: S608
    f"VALUES ({', '.join(['%s'] * len(_NEW))})"
)


_values_of_new = attrgetter(*(field.attname for field in _NEW))
_PLAIN = (models.CharField, models.TextField, models.IntegerField, models.FloatField, models.ForeignKey)
"""Fields whose values drivers take as they are."""
_PREPARED = [(position, field) for position, field in enumerate(_NEW) if not isinstance(field, _PLAIN)]


def row_of(job: Job) -> tuple[Any, ...]:
    """The values of a job that is no row yet, as `insert` takes them: converted before anything is locked."""
    values = list(_values_of_new(job))
    for position, field in _PREPARED:
        if values[position] is not None:
            values[position] = field.get_db_prep_save(values[position], connection)
    return tuple(values)


def insert(rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert new jobs. Their objects get no `pk`; see `read_keys`."""
    if rows:
        with connection.cursor() as cursor:
            cursor.executemany(_INSERT, rows)


def insert_one(row: tuple[Any, ...]) -> int:
    """Insert one new job; returns its key."""
    with connection.cursor() as cursor:
        cursor.execute(f'{_INSERT} RETURNING "id"', row)
        return int(cursor.fetchone()[0])


def read_keys(jobs: Sequence[Job]) -> None:
    """Set the `pk` of jobs that `insert` has written."""
    if jobs:
        found = dict(Job.objects.filter(uid__in=[job.uid for job in jobs]).values_list("uid", "pk"))
        for job in jobs:
            job.pk = found[job.uid]


@lru_cache(maxsize=64)
def _update(columns: tuple[str, ...]) -> str:
    known = set(_COLUMNS)
    unknown = [column for column in columns if column not in known]
    if unknown:
        raise ValueError(f"A job has no column {', '.join(unknown)}.")
    assignments = ", ".join(f'"{column}"=%s' for column in columns)
    return f'UPDATE "queues_job" SET {assignments} WHERE "id"=%s'  # noqa: S608


def write_values(columns: tuple[str, ...], rows: Iterable[tuple[int, Mapping[str, Any]]]) -> None:
    """Write each job's values of the named columns; `rows` are ids with values by column."""
    values = [(*(row[column] for column in columns), pk) for pk, row in rows]
    if values:
        with connection.cursor() as cursor:
            cursor.executemany(_update(columns), values)


def write_jobs(columns: tuple[str, ...], jobs: Sequence[Job]) -> None:
    """Write the named columns of the jobs as they stand in their objects."""
    if not jobs:
        return
    get = attrgetter(*columns)
    rows: list[tuple[Any, ...]] = [(*get(job), job.pk) for job in jobs]
    if "result" in columns:
        at = columns.index("result")
        rows = [(*row[:at], None if row[at] is None else json.dumps(row[at]), *row[at + 1 :]) for row in rows]
    with connection.cursor() as cursor:
        cursor.executemany(_update(columns), rows)
