"""The rows that `post_migrate` makes (content types, permissions, roles) are computed after the first flush of a
process. After each further one they are copied, which takes milliseconds and not a tenth of a second per test."""

from __future__ import annotations

from typing import Any

from django.contrib.contenttypes.models import ContentType
from django.core.management import sql
from django.core.management.commands import flush

from tests.support.rows import TableRows, insert_rows, read_rows

_compute = sql.emit_post_migrate_signal
_computed: dict[str, list[TableRows]] = {}


def install() -> None:
    flush.emit_post_migrate_signal = _after_flush


def _after_flush(verbosity: int, interactive: bool, database: str, **options: Any) -> None:
    if database not in _computed:
        _compute(verbosity, interactive, database, **options)
        _computed[database] = read_rows(database)
        return
    ContentType.objects.clear_cache()
    insert_rows(database, _computed[database])
