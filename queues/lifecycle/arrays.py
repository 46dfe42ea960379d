"""Many rows in one statement: their values travel as one array per column (PostgreSQL) or as one JSON document (SQLite).

So the cost of a statement does not grow by a round trip, a parse and a plan for each row.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from django.db import connection
from django.db.models import Field, Model

from queues.lifecycle.effects import AttemptRow, StepRow
from queues.models import Attempt, Transition


@dataclass(frozen=True, slots=True)
class ArrayUpdate:
    """One UPDATE of many jobs, each with values of its own.

    `given` names what each row brings, with its type on PostgreSQL; `g_id` and `g_now` come by themselves. `changes` and
    `fence` are SQL over a job's columns and the given names: only rows that pass the fence are changed. Their
    `returning` columns are the answer, by id; the first of them is the id.
    """

    given: Mapping[str, str]
    changes: str
    fence: str
    returning: str = '"id"'
    _texts: dict[str, str] = field(default_factory=dict, init=False, repr=False)

    def run(self, rows: Sequence[Sequence[Any]], now: datetime) -> list[tuple[Any, ...]]:
        """Change the rows, each given as its id and values. Inside a transaction."""
        if not rows:
            return []
        vendor = connection.vendor
        text = self._texts.get(vendor) or self._texts.setdefault(vendor, self._text(vendor))
        rows = sorted(rows, key=_first)
        with connection.cursor() as cursor:
            if vendor == "postgresql":
                cursor.execute(text, [now, *map(list, zip(*rows, strict=True))])
            else:
                cursor.execute(text, [now, json.dumps(rows, default=written)])
            return sorted(cursor.fetchall(), key=_first)

    def _text(self, vendor: str) -> str:
        columns = {"g_id": "bigint", **self.given}
        if vendor == "postgresql":
            arrays = ", ".join(f"%s::{type}[]" for type in columns.values())
            # Each row is locked before it is changed, in the order of the arrays, which is that of the ids. A join without
            # LATERAL would lock in the order of its plan, and might look for the rows by the fence instead of the key.
            start = (
                "WITH given AS (SELECT given.*, g_now FROM (SELECT %s::timestamptz AS g_now) AS moment"  # noqa: S608
                f" CROSS JOIN unnest({arrays}) AS given({', '.join(columns)}) CROSS JOIN LATERAL"
                f' (SELECT 1 FROM "queues_job" AS job WHERE job."id" = g_id AND {self.fence} FOR NO KEY UPDATE) AS locked) '
            )
            source, fence = "given", ""
        else:
            values = ", ".join(f"json_extract(value, '$[{at}]') AS {name}" for at, name in enumerate(columns))
            fence = f" AND {self.fence}"
            start, source = "", f"(SELECT %s AS g_now, {values} FROM json_each(%s)) AS given"  # noqa: S608
        return (
            f'{start}UPDATE "queues_job" AS job SET {self.changes} FROM {source} '  # noqa: S608
            f'WHERE job."id" = g_id{fence} RETURNING {self.returning}'
        )


def _first(row: Sequence[Any]) -> Any:
    return row[0]


def written(value: Any) -> str:
    """A moment as the ORM writes it into SQLite."""
    if isinstance(value, datetime):
        return str(value.astimezone(UTC).replace(tzinfo=None))
    raise TypeError(f"{value!r} is no value of a column.")


def array_type(model: type[Model], column: str) -> str:
    """PostgreSQL's type for an array of a column's values. Text of any length, so that one that is too long is refused
    by the assignment and not cut off by a cast."""
    found: Field[Any, Any] = next(one for one in model._meta.concrete_fields if one.column == column)
    kind = found.rel_db_type(connection) if found.primary_key else found.db_type(connection)
    assert kind is not None
    return "text" if kind.startswith("varchar") else kind


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
