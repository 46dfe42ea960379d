"""Rows of all tables, read once and inserted again as they are: milliseconds, where models take tenths of a second."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from django.apps import apps
from django.core.management import color
from django.db import connections, models, transaction

Row = tuple[Any, ...]


@dataclass(frozen=True)
class TableRows:
    model: type[models.Model]
    rows: list[Row]
    times: tuple[int, ...]
    """Which columns are times."""
    key: int
    """Which column is the primary key."""

    def moved(self, begun: datetime, now: datetime) -> TableRows:
        """With all times later by what `now` is later than `begun`; whole minutes stay whole ones."""
        by, by_minutes = now - begun, _minute(now) - _minute(begun)
        return replace(self, rows=[self._moved(row, by, by_minutes) for row in self.rows])

    def _moved(self, row: Row, by: timedelta, by_minutes: timedelta) -> Row:
        values = list(row)
        for at in self.times:
            if (value := values[at]) is not None:
                values[at] = _moved(value, by, by_minutes)
        return tuple(values)


def read_rows(database: str) -> list[TableRows]:
    """The tables that have rows. Their order is free: references are checked at the end of a transaction."""
    connection = connections[database]
    found = []
    with connection.cursor() as cursor:
        for model in apps.get_models(include_auto_created=True):
            if model._meta.proxy or not model._meta.managed:
                continue
            fields = model._meta.local_concrete_fields
            columns = ", ".join(connection.ops.quote_name(field.column) for field in fields)
            cursor.execute(f"SELECT {columns} FROM {connection.ops.quote_name(model._meta.db_table)}")  # noqa: S608
            if rows := cursor.fetchall():
                times = tuple(at for at, field in enumerate(fields) if isinstance(field, models.DateTimeField))
                key = next(at for at, field in enumerate(fields) if field.primary_key)
                found.append(TableRows(model, rows, times, key))
    return found


def added(before: Iterable[TableRows], after: Iterable[TableRows]) -> list[TableRows]:
    """What is in `after` and not, or not alike, in `before`."""
    known = {table.model: {_hashable(row) for row in table.rows} for table in before}
    more = []
    for table in after:
        old = known.get(table.model, set())
        if rows := [row for row in table.rows if _hashable(row) not in old]:
            more.append(replace(table, rows=rows))
    return more


def insert_rows(database: str, tables: Iterable[TableRows], replacing: bool = False) -> None:
    """With `replacing`, rows of the same keys may be there."""
    tables = list(tables)
    connection = connections[database]
    quote = connection.ops.quote_name
    with transaction.atomic(using=database), connection.cursor() as cursor:
        for table in tables:
            name, fields = quote(table.model._meta.db_table), table.model._meta.local_concrete_fields
            if replacing:
                key, keys = quote(fields[table.key].column), [(row[table.key],) for row in table.rows]
                cursor.executemany(f"DELETE FROM {name} WHERE {key} = %s", keys)  # noqa: S608
            columns = ", ".join(quote(field.column) for field in fields)
            places = ", ".join(["%s"] * len(fields))
            cursor.executemany(f"INSERT INTO {name} ({columns}) VALUES ({places})", table.rows)  # noqa: S608
        for statement in connection.ops.sequence_reset_sql(color.no_style(), [table.model for table in tables]):
            cursor.execute(statement)


def _minute(at: datetime) -> datetime:
    return at.replace(second=0, microsecond=0)


def _moved(value: Any, by: timedelta, by_minutes: timedelta) -> Any:
    """SQLite's times are text."""
    at = datetime.fromisoformat(value) if isinstance(value, str) else value
    at += by_minutes if at == _minute(at) else by
    return str(at) if isinstance(value, str) else at


def _hashable(row: Row) -> Row:
    return tuple(str(value) if isinstance(value, dict | list) else value for value in row)
