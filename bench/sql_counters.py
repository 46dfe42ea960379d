"""Counts the SQL statements of a process of the instance; imported by the instance, so that it imports little itself."""

from __future__ import annotations

import mmap
import os
import struct
import threading
from typing import Any

COUNTERS = "BENCH_SQL_COUNTERS"
RECORD = struct.Struct("qq")
"""Statements and commits."""


def count_statements() -> None:
    """In a process of the instance: count what its connections to SQLite run, if the bench requests it."""
    directory = os.environ.get(COUNTERS)
    if directory is None:
        return
    from django.db.backends.signals import connection_created

    lock = threading.Lock()
    files: dict[int, mmap.mmap] = {}

    def record() -> mmap.mmap:
        pid = os.getpid()
        if pid not in files:
            with open(f"{directory}/{pid}", "w+b") as file:
                file.write(bytes(RECORD.size))
                file.flush()
                files[pid] = mmap.mmap(file.fileno(), RECORD.size)
        return files[pid]

    def count(statement: str) -> None:
        with lock:
            into = record()
            some, ended = RECORD.unpack(into[:])
            word = statement.lstrip()[:8].upper()
            if word.startswith("COMMIT"):
                ended += 1
            elif not word.startswith(("BEGIN", "ROLLBACK", "SAVEPOIN", "RELEASE", "PRAGMA")):
                some += 1
            into[:] = RECORD.pack(some, ended)

    def trace(connection: Any, **_: Any) -> None:
        if connection.vendor == "sqlite":
            connection.connection.set_trace_callback(count)

    connection_created.connect(trace, weak=False)
