"""A ready job as the dispatcher reads it: the columns that admission and order need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime

from queues.models import Job
from queues.states import GroupKey, Stage


@dataclass(frozen=True, slots=True)
class Candidate:
    """The fields are columns of `Job`."""

    id: int
    uid: str
    queue_id: int
    priority: int
    project_id: int
    pool: str
    ordering_key: str
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
        return GroupKey(self.queue_id, self.priority, self.project_id, self.pool)

    @property
    def token(self) -> str:
        """Names the job's next delivery, so that admitting it twice charges once."""
        return f"{self.uid}.{self.delivery + 1}"


COLUMNS = tuple(field.name for field in fields(Candidate))


def read_ready(group: GroupKey, *, after_id: int, without_keys: list[str], count: int) -> list[Candidate]:
    """The next `count` ready jobs of a group after the id `after_id`, in order, except those with the ordering keys
    `without_keys`."""
    queue_id, priority, project_id, pool = group
    rows = Job.objects.filter(
        stage=Stage.READY, queue_id=queue_id, priority=priority, project_id=project_id, pool=pool, id__gt=after_id
    )
    if without_keys:
        rows = rows.exclude(ordering_key__in=without_keys)
    return [Candidate(*row) for row in rows.order_by("id").values_list(*COLUMNS)[:count]]
