"""How many jobs match a list's filters, by status and by what they wait for, without reading more rows than a bound.

A filter may match a million jobs, and an index on each combination of filters would cost every job that runs. So the
newest matches are counted, and a figure that may be higher is shown as `9,001+`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from django.db.models import QuerySet

from queues.models import Queue
from queues.selectors.job_filter import of_group
from queues.states import IN_FLIGHT_STAGES, WAITING_STAGES, GroupKey, Stage, Status

MOST = 10_000
MOST_GROUPED = 20_000
LEAST_OF_GROUP = 100
FEW_GROUPS = 20
"""So many groups are counted one by one, more in one query."""


class Count(int):
    """A number of rows. `more`: there may be more, and it is shown with a plus sign."""

    more: bool

    def __new__(cls, value: int, more: bool = False) -> Count:
        made = super().__new__(cls, value)
        made.more = more
        return made

    def plus(self, other: Count) -> Count:
        return Count(int(self) + int(other), self.more or other.more)

    def __str__(self) -> str:
        return f"{int(self):,}{'+' * self.more}"

    def __format__(self, spec: str) -> str:
        return str(self)


def bounded(rows: QuerySet[Any], most: int = MOST) -> Count:
    """At most `most`; what is beyond is not counted."""
    count = rows.order_by()[: most + 1].count()
    return Count(min(count, most), count > most)


def by_status(rows: QuerySet[Any]) -> dict[Status, Count]:
    if not rows.query.where:  # an index by status has each figure
        return {status: bounded(rows.filter(status=status)) for status in Status}
    newest = _by(rows.order_by("-pk"), "status")
    found = {status: Count(newest[status]) for status in Status}
    if newest.total() <= MOST:
        return found
    found = {status: Count(count, True) for status, count in found.items()}
    live = Counter[str]()
    whole = True
    for part in (waiting(rows), rows.filter(stage__in=IN_FLIGHT_STAGES)):
        counted = _by(part.order_by(), "status")
        whole = whole and counted.total() <= MOST
        live.update(counted)
    for status in (Status.PENDING, Status.EXECUTING, Status.RATE_LIMITED, Status.RETRYING):
        found[status] = Count(max(live[status], 0 if whole else found[status]), not whole)
    return found


def total(counts: dict[Status, Count], status: str) -> Count:
    """Of one status, or of all where `status` is empty or unknown."""
    if status in Status.values:
        return counts[Status(status)]
    found = Count(0)
    for count in counts.values():
        found = found.plus(count)
    return Count(min(int(found), MOST), True) if found > MOST or found.more else found


def by_group(rows: QuerySet[Any], groups: Iterable[GroupKey]) -> dict[GroupKey, Count]:
    """Ready jobs of those groups; groups without any are left out."""
    keys = list(groups)
    if not keys:
        return {}
    if len(keys) > FEW_GROUPS:
        ready = waiting(rows).filter(stage=Stage.READY).order_by()
        counted = _by(ready, "queue_id", "priority", "project_id", "pool", most=MOST_GROUPED)
        if counted.total() <= MOST_GROUPED:
            return {key: Count(counted[key]) for key in keys if counted[key]}
    most = max(LEAST_OF_GROUP, MOST_GROUPED // len(keys))
    each = {key: bounded(rows.filter(of_group(key)), most) for key in keys}
    return {key: count for key, count in each.items() if count}


def by_stage_code(rows: QuerySet[Any]) -> dict[str, Count]:
    """Jobs that wait for a reason that their own rows say."""
    # With the conditions of the partial indexes: SQLite uses one only where a query repeats its condition.
    started = rows.filter(stage__in=IN_FLIGHT_STAGES).filter(stage=Stage.BELT)
    parts = (waiting(rows).filter(stage__in=(Stage.HELD, Stage.SCHEDULED)), started)
    found: dict[str, Count] = {}
    for part in parts:
        counted = _by(part.order_by(), "stage", "status")
        for (stage, status), count in counted.items():
            code = _stage_code(stage, status)
            found[code] = found.get(code, Count(0)).plus(Count(count, counted.total() > MOST))
    return found


def _stage_code(stage: int, status: str) -> str:
    if stage == Stage.HELD:
        return "dependency"
    if stage == Stage.BELT:
        return "worker_slot"
    return "retry_backoff" if status == Status.RETRYING else "scheduled"


def waiting(rows: QuerySet[Any]) -> QuerySet[Any]:
    """Those that wait. The queues are named so that SQLite reads them from the index of waiting jobs."""
    queues = list(Queue.objects.values_list("pk", flat=True))
    return rows.filter(stage__in=WAITING_STAGES, queue__in=queues)


def _by(rows: QuerySet[Any], *columns: str, most: int = MOST) -> Counter[Any]:
    """Rows by the values of those columns; of one more row than `most`, so that a caller sees that there are more."""
    counted: Counter[Any] = Counter()
    for row in rows.values_list(*columns)[: most + 1].iterator():
        counted[row if len(columns) > 1 else row[0]] += 1
    return counted
