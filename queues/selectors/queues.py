"""Depths, rates and ages of queues."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Count, QuerySet

from queues import config
from queues.models import DeadLetter, Job, Queue
from queues.ready_groups import groups_waiting
from queues.selectors.jobs import RATE_SPAN, RecentResults, created_after, rate_of, recent_results
from queues.states import IN_FLIGHT_STAGES, WAITING_STAGES, Stage, Status
from quotas import clock
from quotas.engine import priorities
from quotas.models import Project


@dataclass(slots=True)
class QueueDepth:
    """Jobs of one queue: waiting ones by priority band, those of them that are retried, and those in flight."""

    high: int = 0
    normal: int = 0
    low: int = 0
    retry: int = 0
    in_flight: int = 0

    @property
    def waiting(self) -> int:
        return self.high + self.normal + self.low

    def add(self, priority: int, count: int) -> None:
        """Count waiting jobs of a priority."""
        match priorities.band(priority):
            case "high":
                self.high += count
            case "normal":
                self.normal += count
            case _:
                self.low += count


@dataclass(frozen=True, slots=True)
class QueueFacts:
    """One queue's figures; rates are per second over a minute."""

    waiting: int
    by_priority: dict[str, int]
    """Waiting jobs by priority band."""
    in_flight: int
    oldest_age: float | None
    """Seconds since the oldest ready job became ready."""
    rate_in: float
    rate_out: float
    recent: RecentResults
    dead_letters: int
    """Open ones."""


def depths(project: Project | None = None) -> dict[str, QueueDepth]:
    """The depth of every queue, by name."""
    names = {spec.id: spec.name for spec in config.current().queues.values()}
    found = {name: QueueDepth() for name in sorted(names.values())}
    waiting = Job.objects.filter(stage__in=WAITING_STAGES)
    in_flight = Job.objects.filter(stage__in=IN_FLIGHT_STAGES)
    if project is not None:
        waiting, in_flight = waiting.filter(project=project), in_flight.filter(project=project)
    for queue_id, priority, status, count in (
        waiting.order_by().values_list("queue_id", "priority", "status").annotate(count=Count("*"))
    ):
        depth = found[names[queue_id]]
        depth.add(priority, count)
        if status == Status.RETRYING:
            depth.retry += count
    for queue_id, count in in_flight.order_by().values_list("queue_id").annotate(count=Count("*")):
        found[names[queue_id]].in_flight += count
    return found


def queue_facts(queue: Queue, project: Project | None = None) -> QueueFacts:
    """The figures of one queue, for all projects or for one."""
    now = clock.now()
    jobs = Job.objects.filter(queue=queue)
    letters = DeadLetter.objects.filter(queue=queue, handled_at=None)
    if project is not None:
        jobs, letters = jobs.filter(project=project), letters.filter(project=project)
    depth = QueueDepth()
    waiting = jobs.filter(stage__in=WAITING_STAGES).order_by()
    for priority, count in waiting.values_list("priority").annotate(count=Count("*")):
        depth.add(priority, count)
    oldest = ready_since(jobs).get(queue.pk)
    return QueueFacts(
        waiting=depth.waiting,
        by_priority={"high": depth.high, "normal": depth.normal, "low": depth.low},
        in_flight=jobs.filter(stage__in=IN_FLIGHT_STAGES).count(),
        oldest_age=(now - oldest) / timedelta(seconds=1) if oldest else None,
        rate_in=round(created_after(jobs, now - RATE_SPAN).count() / RATE_SPAN.total_seconds(), 3),
        rate_out=round(rate_of(jobs), 3),
        recent=recent_results(jobs, now),
        dead_letters=letters.count(),
    )


def ready_since(rows: QuerySet[Job]) -> dict[int, datetime]:
    """By queue, since when the one of `rows` is ready to run that has been so for the longest time. A retry is ready
    from its time on, a replayed job from its replay on.

    A job that was ready from the start is the oldest of its group if it has the lowest ID; the others are few and have
    an index of their own. So the cost grows with the number of groups and not with the number of jobs.
    """
    ready = rows.filter(stage=Stage.READY)
    groups = groups_waiting()
    times: dict[int, list[datetime | None]] = {queue_id: [] for queue_id, *_ in groups}
    for queue_id, priority, project_id, pool in groups:
        group = ready.filter(queue_id=queue_id, priority=priority, project_id=project_id, pool=pool, not_before=None)
        times[queue_id].append(group.order_by("id").values_list("created_at", flat=True).first())
    for queue_id, found in times.items():
        again = ready.filter(queue_id=queue_id, not_before__isnull=False).order_by("not_before")
        found.append(again.values_list("not_before", flat=True).first())
    known = {queue_id: [time for time in found if time is not None] for queue_id, found in times.items()}
    return {queue_id: min(found) for queue_id, found in known.items() if found}
