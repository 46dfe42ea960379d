"""What a forecast is about: the jobs of a queue, a batch, a pool or a limit, or a single job."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from queues import config
from queues.models import Batch, Job, Queue
from queues.selectors.backlog import Row
from queues.selectors.kinds import Kind
from quotas.models import Project


@dataclass(frozen=True, slots=True)
class LimitTarget:
    """One subject's counter of a policy. `counter` is its key in a simulation."""

    policy: str
    subject: str
    partition: str
    counter: str


Target = Queue | Batch | Job | LimitTarget | str
"""A string is the name of a pool."""


def covers(target: Target, project: Project | None) -> Callable[[Row, Kind], bool]:
    """Whether the forecast is about a job; `project`: only about jobs of this one."""

    def own(row: Row) -> bool:
        return project is None or row.project_id == project.pk

    match target:
        case Queue():
            return lambda row, kind: row.queue_id == target.pk and own(row)
        case Batch():
            return lambda row, kind: row.batch_id == target.pk and own(row)
        case Job():
            return lambda row, kind: row.id == target.pk
        case LimitTarget():
            return lambda row, kind: target.counter in kind.counters and own(row)
    return lambda row, kind: pool_of(row) == target and own(row)


def pool_of(row: Row) -> str:
    """The pool that a job uses first; empty: none."""
    queue = config.current().queues.get(row.queue_id)
    return row.pool or (queue.pool if queue is not None else None) or ""
