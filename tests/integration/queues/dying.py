"""A process that dies right behind one of its commits, on any database that Django knows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connection
from due_work_harness.worker_death import CommitWorker, WorkerDied

WRITES = ("INSERT", "UPDATE", "DELETE")


@contextmanager
def killer(kill_after: int | None) -> Iterator[CommitWorker]:
    """Counts the commits of this thread's connection and dies behind the chosen one: nothing that would have run after
    it runs, and the connection sends nothing more. A write outside of a transaction is a commit of its own."""
    worker = CommitWorker(kill_after)
    real_commit = connection._commit

    def committed() -> None:
        try:
            worker.committed()
        except WorkerDied:
            connection.run_on_commit = []
            raise

    def commit() -> None:
        worker.refuse_if_dead()
        real_commit()
        committed()

    def execute(run: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        worker.refuse_if_dead()
        result = run(sql, params, many, context)
        *_, last = sql.split("; ")  # several statements at once are one transaction
        if not connection.in_atomic_block and last.lstrip().upper().startswith(WRITES):
            committed()
        return result

    connection._commit = commit  # type: ignore[method-assign]
    try:
        with connection.execute_wrapper(execute):
            yield worker
    finally:
        del connection._commit
