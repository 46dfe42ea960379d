"""Queues and workers as JSON: configuration, depths, rates, and the counts over all queues."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any, Literal

from queues.models import Queue, WorkerProcess
from queues.selectors.queues import QueueDepth, QueueFacts
from queues.states import Status
from quotas.models import Project
from quotas.shapes import Page, Shape, field


class Spread(Shape):
    p50: float = field(help="Seconds.")
    p95: float


class QueueAnswer(Shape):
    """Needs `pool` and `retry_policy` selected."""

    name: str
    state: Literal["running", "paused", "draining"]
    reason: str | None
    max_size: int | None
    timeout: float
    concurrency: int | None
    lane: str
    pool: str | None
    retry_policy: str | None
    waiting: int
    by_priority: dict[str, int]
    in_flight: int
    oldest_age: float | None
    rate_in: float
    rate_out: float
    dead_letters: int
    wait: Spread | None = field(help="From acceptance to the first start, over the last five minutes.")
    run: Spread | None = field(help="From the last start to the end, over the last five minutes.")
    success_rate: float | None = field(help="Of the jobs that ended in the last five minutes.")
    failure_rate: float | None


class QueuePage(Page):
    results: list[QueueAnswer]


class Depth(Shape):
    """Jobs of one queue: waiting ones by priority band, those of them that are retried, and those in flight."""

    high: int
    normal: int
    low: int
    retry: int
    in_flight: int


class QueueStatus(Shape):
    queue_size: int
    active_requests: int
    max_concurrent: int
    total_requests: int
    completed: int
    failed: int
    queues: dict[str, Depth]


class QueueStats(Shape):
    stats: dict[str, int]
    total_queued: int
    total_failed: int
    queues: dict[str, Depth]


class WorkerShape(Shape):
    name: str
    host: str
    pid: int
    queues: list[str]
    state: str
    places: int
    busy: int
    lost_places: int = field(help="Threads whose jobs still run after time-out or cancel.")
    jobs_done: int
    jobs_failed: int
    success_rate: float | None
    rate: float = field(digits=3, help="Jobs a second since it started.")
    started_at: datetime
    last_seen: datetime = field("seen_at")


class WorkerPage(Page):
    results: list[WorkerShape]


def queue_shape(queue: Queue, facts: QueueFacts, project: Project | None = None) -> dict[str, Any]:
    """A queue as the platform sees it, or as a project does: the name of a pool that the project may not use is hidden."""
    theirs = queue.pool is not None and (
        project is None or queue.pool.projects is None or project.slug in queue.pool.projects
    )
    figures = asdict(facts)
    recent = figures.pop("recent")
    return QueueAnswer.of(
        queue,
        reason=queue.paused_reason or queue.draining_reason or None,
        pool=queue.pool.name if queue.pool and theirs else None,
        retry_policy=queue.retry_policy.name if queue.retry_policy else None,
        **figures,
        **recent,
    )


def queue_status(counts: Mapping[str, int], found: Mapping[str, QueueDepth], slots: int) -> dict[str, Any]:
    """Counts of jobs by status, and the depth of each queue. `slots`: those of all workers."""
    return QueueStatus.of(
        queue_size=sum(depth.waiting for depth in found.values()),
        active_requests=sum(depth.in_flight for depth in found.values()),
        max_concurrent=slots,
        total_requests=sum(counts.values()),
        completed=counts[Status.COMPLETED],
        failed=counts[Status.DEAD],
        queues=found,
    )


def queue_stats(found: Mapping[str, QueueDepth], dead_letters: int, dead_jobs: int) -> dict[str, Any]:
    """Waiting jobs by priority band, retries and open dead letters."""
    stats = {band: sum(getattr(depth, band) for depth in found.values()) for band in ("high", "normal", "low", "retry")}
    return QueueStats.of(
        stats={**stats, "dlq": dead_letters},
        total_queued=stats["high"] + stats["normal"] + stats["low"],
        total_failed=dead_jobs,
        queues=found,
    )


def worker_shape(worker: WorkerProcess, alive: bool) -> dict[str, Any]:
    return WorkerShape.of(
        worker,
        queues=[worker.lane],
        state="stopped" if worker.stopped_at else "alive" if alive else "lost",
        success_rate=round(1 - worker.jobs_failed / worker.jobs_done, 4) if worker.jobs_done else None,
        rate=worker.jobs_done / max((worker.seen_at - worker.started_at).total_seconds(), 1.0),
    )
