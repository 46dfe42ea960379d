"""Writes one sample per queue, project and minute: how many jobs waited and ran, came and ended, and how long that took."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.db.models import Count

from controlplane.models import QueueSample
from controlplane.observability.durations import added, bucketed
from queues.models import Job, Queue
from queues.selectors.jobs import created_after
from queues.states import IN_FLIGHT_STAGES, WAITING_STAGES, Stage, Status
from quotas.engine import priorities

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
RETENTION = {"minute": timedelta(days=1), "hour": timedelta(days=8)}
SETTLED = timedelta(seconds=5)
"""The time from a minute's end until its jobs are counted, so that late commits are included."""
MAX_DURATIONS = 5_000
"""Jobs of a queue and minute whose durations are read; all are counted."""
Place = tuple[int, int]
"""(queue, project)."""


@dataclass(slots=True)
class QueueHistory:
    """Runs in the leading process; call `note` every few seconds."""

    _written: datetime | None = None

    def note(self, now: datetime) -> int:
        """Write the samples of a minute that is over. Returns their number."""
        minute = (now - SETTLED).replace(second=0, microsecond=0) - MINUTE
        if self._written is not None and minute <= self._written:
            return 0
        samples = list(_of_minute(minute))
        # Two leaders in one minute: the first one's samples stay.
        QueueSample.objects.bulk_create(samples, batch_size=500, ignore_conflicts=True)
        first, self._written = self._written is None, minute
        if first or minute.minute == 59:
            self._sum_up(minute, 24 if first else 2)
            for resolution, age in RETENTION.items():
                QueueSample.objects.filter(resolution=resolution, at__lt=now - age).delete()
        return len(samples)

    @staticmethod
    def _sum_up(minute: datetime, hours: int) -> None:
        """Sum up the hours that are over, also those that an earlier leader has not summed up."""
        over = (minute + MINUTE).replace(minute=0)
        for back in range(1, hours + 1):
            _sum_up(over - back * HOUR)


@dataclass(slots=True)
class _Minute:
    depth: Counter[str] = field(default_factory=Counter)
    running: int = 0
    enqueued: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    waits: list[float] = field(default_factory=list)
    runs: list[float] = field(default_factory=list)


def _of_minute(minute: datetime) -> Iterable[QueueSample]:
    found: dict[Place, _Minute] = defaultdict(_Minute)
    waiting = Job.objects.filter(stage__in=WAITING_STAGES).order_by()
    for queue, project, priority, count in waiting.values_list("queue", "project", "priority").annotate(
        count=Count("*")
    ):
        found[queue, project].depth[priorities.band(priority)] += count
    in_flight = Job.objects.filter(stage__in=IN_FLIGHT_STAGES).order_by()
    for queue, project, count in in_flight.values_list("queue", "project").annotate(Count("id")):
        found[queue, project].running = count
    came = created_after(Job.objects.all(), minute - timedelta(microseconds=1)).filter(created_at__lt=minute + MINUTE)
    for queue, project, count in came.order_by().values_list("queue", "project").annotate(Count("id")):
        found[queue, project].enqueued = count
    for queue in Queue.objects.values_list("pk", flat=True):
        _add_ended(found, queue, minute)
    for (queue, project), one in found.items():
        yield QueueSample(
            queue_id=queue, project_id=project, resolution="minute", at=minute, high=one.depth["high"],
            normal=one.depth["normal"], low=one.depth["low"], running=one.running, enqueued=one.enqueued,
            completed=one.ended[Status.COMPLETED], dead=one.ended[Status.DEAD], cancelled=one.ended[Status.CANCELLED],
            waits=bucketed(one.waits), runs=bucketed(one.runs),
        )  # fmt: skip


def _add_ended(found: dict[Place, _Minute], queue: int, minute: datetime) -> None:
    ended = Job.objects.filter(
        queue=queue, stage=Stage.DONE, finished_at__gte=minute, finished_at__lt=minute + MINUTE
    ).order_by()  # fmt: skip
    columns = ("project", "status", "created_at", "first_started_at", "started_at", "finished_at")
    # Counted here: for a GROUP BY, SQLite would scan the whole index by status.
    for number, (project, status, made, first, begun, end) in enumerate(ended.values_list(*columns).iterator()):
        one = found[queue, project]
        one.ended[status] += 1
        if number < MAX_DURATIONS and first is not None and begun is not None:
            one.waits.append((first - made).total_seconds())
            one.runs.append((end - begun).total_seconds())


def _sum_up(hour: datetime) -> None:
    """Write the hour's samples from its minutes."""
    minutes = QueueSample.objects.filter(resolution="minute", at__gte=hour, at__lt=hour + HOUR)
    parts: dict[Place, list[QueueSample]] = defaultdict(list)
    for sample in minutes.iterator():
        parts[sample.queue_id, sample.project_id].append(sample)
    QueueSample.objects.bulk_create(
        (
            QueueSample(
                queue_id=queue, project_id=project, resolution="hour", at=hour,
                **{name: max(getattr(one, name) for one in each) for name in ("high", "normal", "low", "running")},
                **{name: sum(getattr(one, name) for one in each) for name in ("enqueued", "completed", "dead", "cancelled")},
                waits=dict(added(one.waits for one in each)), runs=dict(added(one.runs for one in each)),
            )
            for (queue, project), each in parts.items()
        ),
        batch_size=500,
        ignore_conflicts=True,
    )  # fmt: skip
