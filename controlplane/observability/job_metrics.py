"""Results, waiting and running times of jobs: totals that only rise, although ended rows are pruned.

Each scrape adds up the jobs that finished since the last one and keeps the sums in Redis. Redis losing them is a
counter's reset, which Prometheus expects.
"""

from __future__ import annotations

import json
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import redis
from django.conf import settings
from django.db import connection
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric

from controlplane.observability.buckets import cumulative
from queues.models import Job, Queue
from queues.states import Stage
from quotas import clock

BOUNDS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0)
ROWS_PER_SCRAPE = 50_000
SLICE = 10_000
LONGEST = 0.2
"""Seconds after which a scrape reads no further slice: an instance that is scraped for the first time catches up in several."""
SETTLED = timedelta(seconds=1)
"""A row is counted when it is so old, so that a late commit is not missed."""
LOCK_SECONDS = 10
ALL_QUEUES = "mark"
"""The field with the mark of a version that had one for all queues."""


def _key() -> str:
    return f"{settings.REDIS_PREFIX}:metrics:jobs"


def collect() -> Iterator[Metric]:
    with redis.Redis.from_url(settings.REDIS_URL, socket_timeout=2.0, decode_responses=True) as client:
        _catch_up(client)
        sums: dict[str, str] = client.hgetall(_key())
    yield from _families({name: float(value) for name, value in sums.items() if name.startswith("[")})


def _catch_up(client: redis.Redis) -> None:
    """Add the jobs that ended since. One scrape does so at a time; others read the totals."""
    if not client.set(f"{_key()}:lock", "1", nx=True, ex=LOCK_SECONDS):
        return
    try:
        # Queue by queue, as the index of ended jobs is ordered: without a queue each scrape would read all of them.
        queues = list(Queue.objects.order_by("pk").values_list("pk", "name"))
        marks = client.hmget(_key(), [ALL_QUEUES, *(_mark(pk) for pk, _ in queues)])
        sums: Counter[tuple[str | int, ...]] = Counter()
        reached: dict[str, str] = {}
        left, end = ROWS_PER_SCRAPE, time.monotonic() + LONGEST
        for position, (pk, name) in enumerate(queues):
            seconds, last = json.loads(str(marks[position + 1] or marks[0] or "[0.0, 0]"))
            while left and time.monotonic() < end:
                rows = _ended(pk, seconds, last, min(SLICE, left))
                if not rows:
                    break
                left -= len(rows)
                seconds, last = _aware(rows[-1][1]).timestamp(), rows[-1][0]
                reached[_mark(pk)] = json.dumps([seconds, last])
                _add(sums, name, rows)
        if not reached:
            return
        with client.pipeline(transaction=True) as pipeline:
            for place, amount in sums.items():
                pipeline.hincrbyfloat(_key(), json.dumps(place), amount)
            for field, mark in reached.items():
                pipeline.hset(_key(), field, mark)
            pipeline.execute()
    finally:
        client.delete(f"{_key()}:lock")


def _mark(queue: int) -> str:
    """The field with the last job of the queue that is counted: when it ended, and its primary key."""
    return f"{ALL_QUEUES}:{queue}"


def _ended(queue: int, seconds: float, last: int, most: int) -> list[tuple[Any, ...]]:
    """The queue's next jobs that ended. From the cursor: to make Django's values of four times costs more than all else."""
    since = datetime.fromtimestamp(seconds, UTC)
    rows = Job.objects.filter(queue=queue, stage=Stage.DONE, finished_at__gte=since)
    query = (
        rows.filter(finished_at__lte=clock.now() - SETTLED)
        .exclude(finished_at=since, id__lte=last)
        .order_by("finished_at", "id")
        .values_list("id", "finished_at", "created_at", "started_at", "first_started_at", "status")[:most]
        .query
    )
    with connection.cursor() as cursor:
        cursor.execute(*query.sql_with_params())
        found: list[tuple[Any, ...]] = cursor.fetchall()
    return found


def _aware(moment: datetime) -> datetime:
    """SQLite's times are in UTC without saying so."""
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _add(sums: Counter[tuple[str | int, ...]], queue: str, rows: list[tuple[Any, ...]]) -> None:
    """By (family, labels.., part), which is the name of the field as a JSON list."""
    for _, finished, created, started, first_started, status in rows:
        sums["total", queue, status] += 1
        if first_started:
            _add_span(sums, "wait", queue, first_started - created)
        if started:
            _add_span(sums, "run", queue, finished - started)


def _add_span(sums: Counter[tuple[str | int, ...]], family: str, queue: str, span: timedelta) -> None:
    seconds = max(0.0, span.total_seconds())
    sums[family, queue, bisect_left(BOUNDS, seconds)] += 1
    sums[family, queue, "sum"] += seconds  # type: ignore[assignment]


def _families(sums: dict[str, float]) -> Iterator[Metric]:
    total = CounterMetricFamily("sluice_jobs", "Jobs that ended, by status.", labels=["queue", "status"])
    spans: dict[str, dict[str, dict[Any, float]]] = {"wait": {}, "run": {}}
    for name, value in sorted(sums.items()):
        family, queue, part = json.loads(name)
        if family == "total":
            total.add_metric([queue, part], value)
        else:
            spans[family].setdefault(queue, {})[part] = value
    yield total
    words = {"wait": "From acceptance to the first start.", "run": "From the last start to the end."}
    for family, text in words.items():
        histogram = HistogramMetricFamily(f"sluice_job_{family}_seconds", text, labels=["queue"])
        for queue, parts in spans[family].items():
            histogram.add_metric([queue], cumulative(BOUNDS, parts), parts.get("sum", 0.0))
        yield histogram
