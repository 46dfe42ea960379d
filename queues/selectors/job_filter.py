"""Jobs by the filters of the jobs list, in a form that can be stored: what matched when it was made matches later.

Members: `jobs` (primary keys), `newest` (highest primary key), `projects` (slugs), `search` with `at` (the time from which
its ages count) and `floor` (primary keys up to it are not searched), `status`, `progress`, `queue`, `project`, `type_has`,
`batch` (primary key), `stage_code` and `groups` (queue, priority, project, pool).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.db.models import Exists, OuterRef, Q, QuerySet

from queues import job_search
from queues.models import DeadLetter, Job
from queues.states import IN_FLIGHT_STAGES, LIVE_STAGES, WAITING_STAGES, GroupKey, Stage, Status

PROGRESS = {"queued": WAITING_STAGES, "running": IN_FLIGHT_STAGES, "finished": (Stage.DONE,)}
WAITING, IN_FLIGHT = Q(stage__in=WAITING_STAGES), Q(stage__in=IN_FLIGHT_STAGES)
"""Conditions of the partial indexes: SQLite uses one only where a query repeats its condition."""
STAGE_CODES = {
    "dependency": WAITING & Q(stage=Stage.HELD),
    "retry_backoff": WAITING & Q(stage=Stage.SCHEDULED, status=Status.RETRYING),
    "scheduled": WAITING & Q(stage=Stage.SCHEDULED) & ~Q(status=Status.RETRYING),
    "worker_slot": IN_FLIGHT & Q(stage=Stage.BELT),
}
"""Reason codes that follow from a job's own row."""
LOOKUPS = {
    "jobs": "pk__in", "newest": "pk__lte", "projects": "project__slug__in", "status": "status", "queue": "queue__name",
    "project": "project__slug", "type_has": "type__icontains", "batch": "batch_id",
}  # fmt: skip


def of_group(key: GroupKey) -> Q:
    return Q(stage=Stage.READY, queue_id=key[0], priority=key[1], project_id=key[2], pool=key[3])


def of_groups(keys: list[GroupKey]) -> Q:
    """Ready jobs of any of the groups; without groups none."""
    condition = Q(pk__in=[])
    for key in keys:
        condition |= of_group(key)
    return condition


def jobs(filter: Mapping[str, Any]) -> QuerySet[Job]:
    """The jobs that match a stored filter."""
    rows = Job.objects.filter(**{LOOKUPS[name]: value for name, value in filter.items() if name in LOOKUPS})
    if unknown := filter.keys() - LOOKUPS.keys() - {"progress", "stage_code", "groups", "search", "at", "floor"}:
        raise ValueError(f"Unknown filters: {', '.join(sorted(unknown))}.")
    if "progress" in filter:
        rows = rows.filter(stage__in=PROGRESS[filter["progress"]])
    if "stage_code" in filter:
        rows = rows.filter(STAGE_CODES[filter["stage_code"]])
    if "groups" in filter:
        rows = rows.filter(of_groups([GroupKey(*key) for key in filter["groups"]]))
    if "search" in filter:
        found = job_search.parse(filter["search"], datetime.fromisoformat(filter["at"]))
        rows = found.apply(rows, floor=filter.get("floor", 0))
    return rows


def eligible(verb: str) -> Q:
    """Which jobs `verb` can be done to: cancel, retry, discard."""
    if verb == "cancel":
        return Q(stage__in=LIVE_STAGES)
    return Q(Exists(DeadLetter.objects.filter(job=OuterRef("pk"), handled_at=None)), status=Status.DEAD)
