"""Queue depth and age, workers, dead letters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from django.db.models import Count
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from redis import RedisError

from queues import wait_metric
from queues.liveness import is_alive
from queues.models import DeadLetter, Job, Queue, WorkerProcess
from queues.selectors.queues import ready_since
from queues.states import WAITING_STAGES
from quotas import clock
from quotas.engine import priorities


def collect() -> Iterator[Metric]:
    yield from _depth()
    yield _workers()
    yield _dead_letters()
    yield _waits()


def _depth() -> Iterator[Metric]:
    depth = GaugeMetricFamily("sluice_queue_depth", "Queued jobs.", labels=["queue", "priority"])
    oldest = GaugeMetricFamily(
        "sluice_queue_oldest_age_seconds", "Seconds since the oldest ready job became ready to run.", labels=["queue"]
    )
    waiting = Job.objects.filter(stage__in=WAITING_STAGES).order_by()
    counts: Counter[tuple[int, str]] = Counter()
    for queue, priority, count in waiting.values_list("queue", "priority").annotate(count=Count("*")):
        counts[queue, priorities.band(priority)] += count
    since = ready_since(Job.objects.all())
    now = clock.now()
    for pk, name in Queue.objects.values_list("pk", "name"):
        for band in ("high", "normal", "low"):
            depth.add_metric([name, band], counts[pk, band])
        oldest.add_metric([name], max(0.0, (now - since[pk]).total_seconds()) if pk in since else 0.0)
    yield depth
    yield oldest


def _workers() -> Metric:
    workers = GaugeMetricFamily("sluice_workers", "Worker processes.", labels=["state"])
    now = clock.now()
    states = Counter({"busy": 0, "idle": 0, "lost": 0})
    for worker in WorkerProcess.objects.filter(stopped_at=None).only("stopped_at", "seen_at", "busy"):
        states["lost" if not is_alive(worker, now) else "busy" if worker.busy else "idle"] += 1
    for state, count in states.items():
        workers.add_metric([state], count)
    return workers


def _dead_letters() -> Metric:
    letters = GaugeMetricFamily("sluice_dead_letters", "Open dead letters.", labels=["category", "severity"])
    rows = DeadLetter.objects.filter(handled_at=None).order_by().values_list("category", "severity")
    for category, severity, count in rows.annotate(count=Count("*")):
        letters.add_metric([category, severity], count)
    return letters


def _waits() -> Metric:
    """The sums of the wait ledger; none while Redis is unavailable."""
    waits = CounterMetricFamily(
        "sluice_wait_seconds",
        "Seconds in which a group of jobs, or one user or chat of it, waited for one reason.",
        labels=["queue", "reason"],
    )
    try:
        sums = wait_metric.totals()
    except RedisError:
        return waits
    names = dict(Queue.objects.values_list("pk", "name"))
    for (queue, reason), seconds in sums.items():
        if queue in names:
            waits.add_metric([names[queue], reason], seconds)
    return waits
