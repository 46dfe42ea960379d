"""The jobs that wait and run now, of all projects: each row where they are few, a sample of equal parts where they are many."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, NamedTuple

from django.db.models import Count, Max, Min, QuerySet

from queues.models import Batch, Job, JobDependency, Queue
from queues.states import IN_FLIGHT_STAGES, WAITING_STAGES, GroupKey, Stage

MOST = 2_000
"""Jobs that are read one by one."""
SAMPLED = 1_000
"""Of more, so many are read, and each stands for several."""
MOST_GROUPS = 300
"""Groups of which jobs are read where there are more than `MOST`; those with most jobs."""
MOST_IN_FLIGHT = 5_000
PROBES = 10
"""Places at which a large group is sampled."""
COLUMNS = (
    "id", "uid", "project_id", "queue_id", "batch_id", "type", "pool", "model", "priority", "user", "keys", "cost",
    "timeout", "stage", "ordering_key", "not_before", "suspect", "account_id", "created_at", "started_at",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """A job as a simulation needs it, or `size` jobs of which it is one."""

    id: int
    uid: str
    project_id: int
    queue_id: int
    batch_id: int | None
    type: str
    pool: str
    model: str
    priority: int
    user: str
    keys: dict[str, str]
    cost: dict[str, int]
    timeout: float | None
    stage: int
    ordering_key: str
    not_before: datetime | None
    suspect: bool
    account_id: int | None
    created_at: datetime
    started_at: datetime | None
    size: int = 1


@dataclass(slots=True)
class Backlog:
    """All that waits or runs."""

    waiting: list[Row] = field(default_factory=list)
    running: list[Row] = field(default_factory=list)
    after: dict[int, tuple[int, ...]] = field(default_factory=dict)
    """By a job's id, the ids of the unfinished jobs that it comes after."""
    sampled: bool = False
    """Whether rows stand for several jobs."""


def row_of(job: Job, size: int = 1) -> Row:
    """A job that may not be in SQL."""
    return replace(Row(*(getattr(job, name) for name in COLUMNS)), size=size)


def read_backlog(special: QuerySet[Job] | None = None) -> Backlog:
    """`special`: a few jobs that a forecast is about, which are read one by one as far as they are no more than half of
    `SAMPLED`."""
    counts = _counts()
    running = [Row(*row) for row in Job.objects.filter(stage__in=IN_FLIGHT_STAGES).order_by("id").values_list(*COLUMNS)[:MOST_IN_FLIGHT]]  # fmt: skip
    if sum(counts.values()) <= MOST:
        waiting = [Row(*row) for row in _waiting().order_by("id").values_list(*COLUMNS)[: 2 * MOST]]
        return Backlog(waiting, running, _dependencies(waiting))
    named = _special(special) if special is not None else []
    for row in named:
        place = _place(row)
        counts[place] = max(counts.get(place, 0) - row.size, 0)
    taken = {row.id for row in named}
    waiting = named + [row for row in _sample(counts) if row.id not in taken]
    return Backlog(waiting, running, _dependencies(waiting), sampled=True)


class Place(NamedTuple):
    """What the rows of one sample share. `pool` is None for jobs that are not ready yet."""

    stage: int
    queue_id: int
    priority: int
    project_id: int
    pool: str | None


def _place(row: Row) -> Place:
    return Place(row.stage, row.queue_id, row.priority, row.project_id, row.pool if row.stage == Stage.READY else None)


def _waiting() -> QuerySet[Job]:
    """The queues are named so that SQLite reads the index of waiting jobs."""
    return Job.objects.filter(stage__in=WAITING_STAGES, queue__in=list(Queue.objects.values_list("pk", flat=True)))


def _counts() -> dict[Place, int]:
    """How many wait, from indexes alone."""
    ready = Job.objects.filter(stage=Stage.READY).order_by().values_list(*GroupKey._fields)
    found = {
        Place(Stage.READY, queue_id, priority, project_id, pool): count
        for queue_id, priority, project_id, pool, count in ready.annotate(count=Count("*"))
    }
    others = _waiting().filter(stage__in=(Stage.HELD, Stage.SCHEDULED)).order_by()
    for stage, queue_id, priority, project_id, count in others.values_list(
        "stage", "queue_id", "priority", "project_id"
    ).annotate(count=Count("*")):
        found[Place(stage, queue_id, priority, project_id, None)] = count
    return found


def _special(jobs: QuerySet[Job]) -> list[Row]:
    rows = [
        Row(*row) for row in jobs.filter(stage__in=WAITING_STAGES).order_by().values_list(*COLUMNS)[: SAMPLED // 2 + 1]
    ]
    if len(rows) <= SAMPLED // 2:
        return rows
    whole = jobs.filter(stage__in=WAITING_STAGES).count()
    return _weighted(rows[: SAMPLED // 2], whole)


def _sample(counts: dict[Place, int]) -> Iterator[Row]:
    """So many rows of each place as its share of all jobs is, at least one, from evenly distributed positions."""
    whole = sum(counts.values())
    largest = sorted(counts.items(), key=lambda item: -item[1])[:MOST_GROUPS]
    for place, count in largest:
        if count <= 0:
            continue
        jobs = Job.objects.filter(**{name: value for name, value in place._asdict().items() if value is not None})
        wanted = max(SAMPLED * count // whole, 1)
        column = "not_before" if place.stage == Stage.SCHEDULED else "id"
        rows = list(jobs.order_by(column).values_list(*COLUMNS)[:wanted]) if count <= wanted else []
        yield from _weighted([Row(*row) for row in rows or _probed(jobs, column, wanted)], count)


def _probed(jobs: QuerySet[Job], column: str, wanted: int) -> list[Any]:
    ends = jobs.aggregate(first=Min(column), last=Max(column))
    if ends["first"] is None:
        return []
    probes = min(PROBES, wanted)
    each = -(-wanted // probes)
    found: dict[int, Any] = {}
    for number in range(probes):
        begin = ends["first"] + (ends["last"] - ends["first"]) * number / probes
        if column == "id":
            begin = int(begin)
        rows = jobs.filter(**{f"{column}__gte": begin}).order_by(column).values_list(*COLUMNS)[:each]
        found.update((row[0], row) for row in rows)
    return list(found.values())


def _weighted(rows: Sequence[Row], whole: int) -> list[Row]:
    """The rows, of which each stands for as many as the others: together for `whole`."""
    if not rows:
        return []
    each, more = divmod(max(whole, len(rows)), len(rows))
    return [replace(row, size=each + (number < more)) for number, row in enumerate(rows)]


def _dependencies(waiting: Sequence[Row]) -> dict[int, tuple[int, ...]]:
    """What jobs come after that wait for others or for a batch, as far as those jobs are read."""
    dependent = [row.id for row in waiting if row.stage == Stage.HELD]
    if not dependent:
        return {}
    found: dict[int, list[int]] = {number: [] for number in dependent}
    pairs = JobDependency.objects.filter(job_id__in=dependent).exclude(after__stage=Stage.DONE)
    for number, other in pairs.values_list("job_id", "after_id"):
        found[number].append(other)
    batches = dict(Batch.objects.filter(then_id__in=dependent, finished_at=None).values_list("id", "then_id"))
    for batch, number in batches.items():
        found[number] += (
            Job.objects.filter(batch_id=batch).exclude(stage=Stage.DONE).values_list("id", flat=True)[:MOST]
        )
    return {number: tuple(others) for number, others in found.items()}
