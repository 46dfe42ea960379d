"""A waiting job as the dispatcher sees it: what admission and order need, and no more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from queues.models import Job
from queues.ready_groups import GroupKey
from queues.states import Stage

COLUMNS = (
    "id",
    "uid",
    "queue_id",
    "priority",
    "project_id",
    "pool",
    "lane",
    "user",
    "keys",
    "cost",
    "delivery",
    "suspect",
    "created_at",
    "status",
    "timeout",
    "model",
    "refused_by",
    "type",
)


@dataclass(frozen=True, slots=True)
class Candidate:
    id: int
    uid: str
    queue_id: int
    priority: int
    project_id: int
    pool: str
    lane: str
    user: str
    keys: Mapping[str, str]
    cost: Mapping[str, int]
    delivery: int
    suspect: bool
    created_at: datetime
    status: str
    timeout: float | None
    model: str = ""
    refused_by: int | None = None
    type: str = ""

    @property
    def group(self) -> GroupKey:
        return (self.queue_id, self.priority, self.project_id, self.pool)


def heads(group: GroupKey, *, behind: int, without: list[str], count: int) -> list[Candidate]:
    """The next `count` waiting jobs of a group in order, behind the id `behind`, not in the lanes `without`."""
    queue_id, priority, project_id, pool = group
    rows = Job.objects.filter(
        stage=Stage.READY, queue_id=queue_id, priority=priority, project_id=project_id, pool=pool, id__gt=behind
    )
    if without:
        rows = rows.exclude(lane__in=without)
    return [Candidate(*row) for row in rows.order_by("id").values_list(*COLUMNS)[:count]]
