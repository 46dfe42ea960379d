"""The database: reachable, up to date, credentials readable."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from django.db import Error, connection
from django.db.migrations.executor import MigrationExecutor

from controlplane.doctor.finding import Finding, error, ok, warning
from quotas.models import Account
from quotas.models.encrypted import Ciphertext, CredentialUnreadable


def examine() -> Iterator[Finding]:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except Error as problem:
        yield error("sql", f"{type(problem).__name__}: not reachable.", "Check DATABASE_URL and the server.")
        return
    yield _version()
    executor = MigrationExecutor(connection)
    waiting = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if waiting:
        yield error("migrations", f"{len(waiting)} are waiting.", "Run `manage.py prepare`, or `manage.py up`.")
        return
    yield ok("migrations", "all applied")
    yield _credentials()


def _version() -> Finding:
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA journal_mode")
            mode = cursor.fetchone()[0]
        if mode != "wal":
            return warning("sql", f"SQLite with journal mode {mode}.", "Put the file on a local disk: WAL needs one.")
        return ok("sql", f"SQLite {sqlite3.sqlite_version}, WAL; for one machine")
    version = getattr(connection, "pg_version", 0) // 10000
    if version < 14:
        return warning("sql", f"PostgreSQL {version}.", "Use 14 or newer.")
    return ok("sql", f"PostgreSQL {version}")


def _credentials() -> Finding:
    unreadable = []
    for account in Account.objects.select_related("pool").iterator():
        try:
            Ciphertext(account.credential).reveal()
        except CredentialUnreadable:
            unreadable.append(str(account))
    if unreadable:
        return error(
            "credentials",
            f"{len(unreadable)} can't be decrypted: {', '.join(unreadable[:5])}.",
            "Put the key that encrypted them back into SLUICE_CREDENTIAL_KEYS, or enter them anew.",
        )
    return ok("credentials", "all readable")
