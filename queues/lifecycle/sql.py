"""Writes and locks rows by SQL statements that are composed once, from lists of column names.

Composing a query over all of a job's columns costs the ORM more than SQL takes to answer it, and a busy worker sends the
same thing a hundred times a second. Many rows travel as one array for each column (PostgreSQL) or as one JSON document
(SQLite), so that the cost of a statement does not grow by a round trip, a parse and a plan for each row.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from operator import attrgetter
from typing import Any, TypeVar

from django.db import connection
from django.db.models import Field, Model
from django.db.models.base import ModelState
from django.db.models.expressions import RawSQL

from queues.models import Job
from queues.states import Stage
from quotas import clock

T = TypeVar("T")
MAX_PARAMETERS = 500
"""Values or rows in one statement at most."""


def slices(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """`items` in order, in parts of up to `size`."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def quoted(column: str) -> str:
    return f'"{column}"'


def written(value: Any) -> str:
    """A moment as the ORM writes it into SQLite."""
    if isinstance(value, datetime):
        if value.tzinfo is UTC:
            return value.isoformat(" ")[: -len("+00:00")]
        return str(value.astimezone(UTC).replace(tzinfo=None))
    raise TypeError(f"{value!r} is no value of a column.")


def one_of(texts: Sequence[str]) -> Any:
    """For a look-up `__in`: texts however many, of which more than a few travel as one value."""
    if len(texts) <= MAX_PARAMETERS:
        return texts
    if connection.vendor == "postgresql":
        return RawSQL("SELECT unnest(%s::text[])", [list(texts)])
    return RawSQL("SELECT value FROM json_each(%s)", [json.dumps(texts)])


def array_type(model: type[Model], column: str) -> str:
    """PostgreSQL's type for an array of a column's values. Text of any length, so that one that is too long is refused
    by the assignment and not cut off by a cast."""
    found: Field[Any, Any] = next(one for one in model._meta.concrete_fields if one.column == column)
    kind = found.rel_db_type(connection) if found.primary_key else found.db_type(connection)
    assert kind is not None
    return "text" if kind.startswith("varchar") else kind


@lru_cache(maxsize=512)
def _statement(columns: tuple[str, ...], count: int, stage: Stage, lock: bool) -> str:
    names = ", ".join(map(quoted, columns))
    marks = ", ".join(["%s"] * count)
    return (
        f'SELECT {names} FROM "queues_job" WHERE "id" IN ({marks}) AND "stage" = {int(stage)} ORDER BY "id"'  # noqa: S608
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


# Rows as jobs

_FIELDS = Job._meta.concrete_fields
_NAMES = [column.attname for column in _FIELDS]
_COLUMNS = [str(column.column) for column in _FIELDS]
ALL_COLUMNS = ", ".join(map(quoted, _COLUMNS))
"""What `job_of` takes, for a RETURNING clause."""


def job_of(row: Sequence[Any]) -> Job:
    """A job from all of its raw columns: what `Model.from_db` makes, without its signals and its loop over the fields."""
    values = dict(zip(_NAMES, row, strict=True))
    for name, read in _readers(connection.vendor):
        value = values[name]
        if value is not None:
            values[name] = read(value)
    return _made(values, connection.alias)


def read(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[list[Any]]:
    """Rows of these columns of jobs, by attribute, as Python has their values."""
    readers = dict(_readers(connection.vendor))
    found = [(position, readers[name]) for position, name in enumerate(names) if name in readers]
    for row in rows:
        values = list(row)
        for position, of_sql in found:
            if values[position] is not None:
                values[position] = of_sql(values[position])
        yield values


def duplicate(job: Job) -> Job:
    """A copy whose fields can be set without changing `job`."""
    return _made(job.__dict__, job._state.db or connection.alias)


def _made(values: Mapping[str, Any], alias: str) -> Job:
    job = Job.__new__(Job)
    job.__dict__.update(values)
    job._state = state = ModelState()
    state.adding, state.db = False, alias
    return job


@lru_cache(maxsize=2)
def _readers(vendor: str) -> list[tuple[str, Any]]:
    """How values of this kind of database become Python's, by attribute; the others are so already."""
    kinds: dict[str, Any] = {"JSONField": _read_json}
    if vendor == "sqlite":
        kinds |= {"DateTimeField": read_moment, "BooleanField": bool}
    return [(one.attname, kinds[one.get_internal_type()]) for one in _FIELDS if one.get_internal_type() in kinds]


def _read_json(text: str) -> Any:
    return {} if text == "{}" else json.loads(text)


def read_moment(found: datetime | str) -> datetime:
    """A moment from its raw column. Django's connections convert columns that are declared as moments, but not to UTC."""
    value = found if isinstance(found, datetime) else datetime.fromisoformat(found)
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value


def held_for(job_ids: Sequence[int]) -> set[int]:
    """Jobs of stage HELD that wait for any of the jobs `job_ids`."""
    if connection.vendor == "postgresql":
        among, value = "= ANY(%s)", list(job_ids)
    else:
        among, value = "IN (SELECT value FROM json_each(%s))", json.dumps(list(job_ids))  # type: ignore[assignment]
    with connection.cursor() as cursor:
        cursor.execute(
            f'SELECT d."job_id" FROM "queues_jobdependency" AS d JOIN "queues_job" AS j ON j."id" = d."job_id" '  # noqa: S608
            f'WHERE d."after_id" {among} AND j."stage" = {int(Stage.HELD)}',
            [value],
        )
        return {pk for (pk,) in cursor.fetchall()}


# Many rows, each with its own values


def insert_many(model: type[Model], columns: tuple[str, ...], rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert rows, given as their values of the named columns, a few hundred in one statement."""
    for some in slices(rows, MAX_PARAMETERS):
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


def write_jobs(columns: tuple[str, ...], jobs: Sequence[Job]) -> None:
    """Write the named columns of the jobs as they stand in their objects. Their rows are locked by the caller."""
    if not jobs:
        return
    get = attrgetter(*columns)
    rows: list[tuple[Any, ...]] = [(*get(job), job.pk) for job in jobs]
    if "result" in columns:
        at = columns.index("result")
        rows = [(*row[:at], None if row[at] is None else json.dumps(row[at]), *row[at + 1 :]) for row in rows]
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(_update_arrays(columns), list(map(list, zip(*rows, strict=True))))
        else:
            cursor.executemany(_update(columns), rows)


@lru_cache(maxsize=8)
def _update(columns: tuple[str, ...]) -> str:
    assignments = ", ".join(f'"{column}"=%s' for column in _checked(columns))
    return f'UPDATE "queues_job" SET {assignments} WHERE "id"=%s'  # noqa: S608


@lru_cache(maxsize=8)
def _update_arrays(columns: tuple[str, ...]) -> str:
    assignments = ", ".join(f'"{column}"=g_{column}' for column in _checked(columns))
    arrays = ", ".join(f"%s::{array_type(Job, column)}[]" for column in (*columns, "id"))
    names = ", ".join(f"g_{column}" for column in (*columns, "id"))
    return f'UPDATE "queues_job" SET {assignments} FROM unnest({arrays}) AS given({names}) WHERE "id" = g_id'  # noqa: S608


def _checked(columns: tuple[str, ...]) -> tuple[str, ...]:
    unknown = [column for column in columns if column not in set(_COLUMNS)]
    if unknown:
        raise ValueError(f"A job has no column {', '.join(unknown)}.")
    return columns


@dataclass(frozen=True, slots=True)
class ArrayUpdate:
    """One UPDATE of many jobs, each with values of its own.

    `given` names what each row brings, with its type on PostgreSQL; `g_id`, `g_now` (SQL's time) and `g_until`, which is
    `lasts` later, come by themselves. `changes` and `fence` are SQL over a job's columns and the given names: only rows that pass
    the fence are changed. Their `returning` columns are the answer, by id; the first of them is the id.
    """

    given: Mapping[str, str]
    changes: str
    fence: str
    returning: str = '"id"'
    lasts: timedelta = timedelta(0)
    _texts: dict[str, str] = field(default_factory=dict, init=False, repr=False)

    def run(self, rows: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
        """Change the rows, each given as its id and values. Inside a transaction."""
        if not rows:
            return []
        vendor = connection.vendor
        text = self._texts.get(vendor) or self._texts.setdefault(vendor, self._text(vendor))
        rows = sorted(rows, key=_first)
        with connection.cursor() as cursor:
            if vendor == "postgresql":
                cursor.execute(text, [clock.stamp(), *map(list, zip(*rows, strict=True))])
            else:
                now = clock.now()
                cursor.execute(text, [now, now + self.lasts, json.dumps(rows, default=written)])
            return sorted(cursor.fetchall(), key=_first)

    def _text(self, vendor: str) -> str:
        columns = {"g_id": "bigint", **self.given}
        if vendor == "postgresql":
            arrays = ", ".join(f"%s::{type}[]" for type in columns.values())
            # Each row is locked before it is changed, in the order of the arrays, which is that of the ids. A join without
            # LATERAL would lock in the order of its plan, and might look for the rows by the fence instead of the key.
            start = (
                f"WITH given AS (SELECT given.*, g_now, g_now + interval '{self.lasts.total_seconds()} seconds' AS g_until"  # noqa: S608
                " FROM (SELECT coalesce(%s::timestamptz, clock_timestamp()) AS g_now) AS moment"
                f" CROSS JOIN unnest({arrays}) AS given({', '.join(columns)}) CROSS JOIN LATERAL"
                f' (SELECT 1 FROM "queues_job" AS job WHERE job."id" = g_id AND {self.fence} FOR NO KEY UPDATE) AS locked) '
            )
            source, fence = "given", ""
        else:
            values = ", ".join(f"json_extract(value, '$[{at}]') AS {name}" for at, name in enumerate(columns))
            fence = f" AND {self.fence}"
            start, source = "", f"(SELECT %s AS g_now, %s AS g_until, {values} FROM json_each(%s)) AS given"  # noqa: S608
        return (
            f'{start}UPDATE "queues_job" AS job SET {self.changes} FROM {source} '  # noqa: S608
            f'WHERE job."id" = g_id{fence} RETURNING {self.returning}'
        )


def _first(row: Sequence[Any]) -> Any:
    return row[0]
