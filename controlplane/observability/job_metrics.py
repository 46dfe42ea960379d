"""Results, waiting and running times of jobs: totals that only rise, although ended rows are pruned.

Each scrape adds up the jobs that finished since the last one and keeps the sums in Redis. Redis losing them is a
counter's reset, which Prometheus expects.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import redis
from django.conf import settings
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric

from controlplane.observability.buckets import cumulative
from queues.models import Job
from queues.states import Stage
from quotas import clock

BOUNDS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0)
ROWS_PER_SCRAPE = 50_000
SETTLED = timedelta(seconds=1)
"""A row is counted when it is so old, so that a late commit is not missed."""
LOCK_SECONDS = 10


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
        mark = client.hget(_key(), "mark")
        seconds, last = json.loads(str(mark)) if mark else (0.0, 0)
        since = datetime.fromtimestamp(seconds, UTC)
        rows = list(
            Job.objects.filter(stage=Stage.DONE, finished_at__gte=since, finished_at__lte=clock.now() - SETTLED)
            .exclude(finished_at=since, id__lte=last)
            .order_by("finished_at", "id")
            .values_list("id", "finished_at", "created_at", "started_at", "first_started_at", "queue__name", "status")[
                :ROWS_PER_SCRAPE
            ]
        )
        if not rows:
            return
        last, finished = rows[-1][:2]
        assert finished is not None
        with client.pipeline(transaction=True) as pipeline:
            for name, amount in _sums(rows).items():
                pipeline.hincrbyfloat(_key(), name, amount)
            pipeline.hset(_key(), "mark", json.dumps([finished.timestamp(), last]))
            pipeline.execute()
    finally:
        client.delete(f"{_key()}:lock")


def _sums(rows: list[tuple[Any, ...]]) -> Counter[str]:
    """Field names are JSON lists: [family, labels.., part]."""
    sums: Counter[str] = Counter()
    for _, finished, created, started, first_started, queue, status in rows:
        sums[json.dumps(["total", queue, status])] += 1
        spans = []
        if first_started:
            spans.append(("wait", first_started - created))
        if started:
            spans.append(("run", finished - started))
        for family, span in spans:
            seconds = max(0.0, span.total_seconds())
            sums[json.dumps([family, queue, bisect_left(BOUNDS, seconds)])] += 1
            sums[json.dumps([family, queue, "sum"])] += seconds
    return sums


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
