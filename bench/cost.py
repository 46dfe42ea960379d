"""What a run costs a running instance: processor time by kind of process, SQL statements, commits, and bytes of WAL.

On PostgreSQL the server counts (`pg_stat_statements`, `pg_stat_database`, the position of the WAL). SQLite does not count,
so each process counts its own statements in a file when `BENCH_SQL_COUNTERS` names a directory; that costs processor time
itself, so a run is measured either with the counters or for its processor time.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from bench.sql_counters import RECORD
from tests.support.instance import process_table

POSTGRES = ("shared_preload_libraries=pg_stat_statements", "pg_stat_statements.track=top")
FOREIGN_KEYS = "SELECT 1 FROM ONLY %"
"""PostgreSQL's own checks of foreign keys, which no client sends."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Totals so far; the difference of two is what happened in between."""

    dispatcher: float = 0.0
    """Seconds of processor time."""
    workers: float = 0.0
    sql_server: float = 0.0
    statements: int = 0
    commits: int = 0
    wal_bytes: int = 0

    def __sub__(self, other: Cost) -> Cost:
        return Cost(*(getattr(self, name) - getattr(other, name) for name in Cost.__slots__))

    def per_job(self, jobs: int) -> str:
        cpu = 1e3 * (self.dispatcher + self.workers) / jobs
        text = f"CPU {cpu:.3f} ms/job (dispatcher {1e3 * self.dispatcher / jobs:.3f}, workers {1e3 * self.workers / jobs:.3f}"
        text += f", SQL server {1e3 * self.sql_server / jobs:.3f})" if self.sql_server else ")"
        if self.statements:
            text += f"   {self.statements / jobs:.2f} statements, {self.commits / jobs:.3f} commits"
        if self.wal_bytes:
            text += f", {self.wal_bytes / jobs / 1024:.2f} KiB of WAL"
        return text


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, its threads included."""
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")


def tree_cpu_seconds(pid: int) -> float:
    """Processor time of a process and all its descendants, those that have ended included."""
    table = process_table()
    members = {pid}
    while grown := {row.pid for row in table.values() if row.parent in members} - members:
        members |= grown
    total = 0
    for member in members:
        try:
            stat = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
        except FileNotFoundError:
            continue
        total += sum(map(int, stat[11:15]))
    return total / os.sysconf("SC_CLK_TCK")


def prepare(database: str | None) -> None:
    """Make the server count statements."""
    if database:
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")


def read(instance: Any, database: str | None, counters: str | None) -> Cost:
    """The instance's totals."""
    dispatcher = sum(map(cpu_seconds, instance.pids("dispatcher")))
    workers = sum(cpu_seconds(pid) for kind in ("worker-io", "worker-cpu") for pid in instance.pids(kind))
    if database:
        return read_postgres(dispatcher, workers, database)
    statements = commits = 0
    for path in Path(counters).iterdir() if counters else ():
        some, ended = RECORD.unpack(path.read_bytes()[: RECORD.size])
        statements, commits = statements + some, commits + ended
    return Cost(dispatcher, workers, 0.0, statements, commits)


def read_postgres(dispatcher: float, workers: float, database: str) -> Cost:
    """The totals of a database, with the processor times that the caller has read."""
    with psycopg.connect(database, autocommit=True) as connection:
        # The statistics of other sessions arrive when they are idle, at the latest after a second.
        row = connection.execute(
            """SELECT (SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_statements
                       WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
                         AND query NOT ILIKE '%%pg_stat_%%' AND query NOT LIKE %s AND query !~* '^(begin|commit|rollback|savepoint|release)'),
                      (SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()),
                      (pg_current_wal_insert_lsn() - '0/0')::bigint""",
            [FOREIGN_KEYS],
        ).fetchone()
        assert row is not None
        pids = [
            pid
            for (pid,) in connection.execute("SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'")
        ]
    server = sum(cpu_seconds(pid) for pid in pids if Path(f"/proc/{pid}/stat").exists())
    return Cost(dispatcher, workers, server, *row)
