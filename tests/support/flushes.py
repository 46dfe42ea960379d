"""The rows that `post_migrate` makes (content types, permissions, roles) are computed after the first flush of a
process. After each further one they are copied, which takes milliseconds and not a tenth of a second per test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.apps import apps
from django.contrib.contenttypes.models import ContentType
from django.core.management import color, sql
from django.core.management.commands import flush
from django.db import connections, models, transaction

_compute = sql.emit_post_migrate_signal


@dataclass(frozen=True)
class _Table:
    model: type[models.Model]
    insert: str
    rows: list[tuple[Any, ...]]


_tables: dict[str, list[_Table]] = {}


def install() -> None:
    flush.emit_post_migrate_signal = _after_flush


def _after_flush(verbosity: int, interactive: bool, database: str, **options: Any) -> None:
    if database not in _tables:
        _compute(verbosity, interactive, database, **options)
        _tables[database] = _filled(database)
        return
    ContentType.objects.clear_cache()
    connection = connections[database]
    with transaction.atomic(using=database), connection.cursor() as cursor:
        for table in _tables[database]:
            cursor.executemany(table.insert, table.rows)
        resets = connection.ops.sequence_reset_sql(color.no_style(), [table.model for table in _tables[database]])
        for statement in resets:
            cursor.execute(statement)


def _filled(database: str) -> list[_Table]:
    """The tables that have rows. Their order is free: references are checked at the end of the transaction."""
    connection = connections[database]
    found = []
    with connection.cursor() as cursor:
        for model in apps.get_models(include_auto_created=True):
            if model._meta.proxy or not model._meta.managed:
                continue
            name = connection.ops.quote_name(model._meta.db_table)
            cursor.execute(f"SELECT * FROM {name}")  # noqa: S608
            if rows := cursor.fetchall():
                places = ", ".join(["%s"] * len(rows[0]))
                found.append(_Table(model, f"INSERT INTO {name} VALUES ({places})", rows))  # noqa: S608
    return found
