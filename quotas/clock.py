"""SQL's clock, which stamps and judges rows: a process whose own clock is wrong changes nothing."""

from __future__ import annotations

from datetime import UTC, datetime

from django.db import connection


def now() -> datetime:
    """The database server's present time, in UTC; with SQLite there is one host, and its clock is the database's."""
    if connection.vendor == "sqlite":
        return datetime.now(UTC)
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        found: tuple[datetime] = cursor.fetchone()
        return found[0]


def stamp() -> datetime | None:
    """The present time for a statement that can read the server's by itself, which saves a statement: None on PostgreSQL, where
    the statement takes `coalesce(%s::timestamptz, clock_timestamp())`."""
    return None if connection.vendor == "postgresql" else now()
