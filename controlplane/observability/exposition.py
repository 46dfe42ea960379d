"""`/metrics` for Prometheus. Every figure is read from SQL and Redis at the scrape.

So any web process can answer, for all processes, and nothing has to be collected from workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import redis
import structlog
from django.db import Error as SqlError
from django.http import HttpRequest, HttpResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from controlplane.observability import account_metrics, call_metrics, job_metrics, limit_metrics, queue_metrics
from quotas.engine.errors import LimiterUnavailable

log = structlog.get_logger(__name__)

PARTS: dict[str, Callable[[], Iterator[Metric]]] = {
    "queues": queue_metrics.collect,
    "jobs": job_metrics.collect,
    "accounts": account_metrics.collect,
    "limits": limit_metrics.collect,
    "gateway": call_metrics.collect,
}


class SluiceCollector(Collector):
    """Reads each part. A part that can't be read has no figures and is named in `sluice_scrape_ok`."""

    def collect(self) -> Iterator[Metric]:
        health = GaugeMetricFamily("sluice_scrape_ok", "1 where a part's figures could be read.", labels=["part"])
        for name, part in PARTS.items():
            try:
                yield from list(part())
                health.add_metric([name], 1)
            except (SqlError, redis.RedisError, LimiterUnavailable) as error:
                log.warning("metrics.part_failed", part=name, error=type(error).__name__)
                health.add_metric([name], 0)
            except Exception:  # the other parts' figures are read all the same
                log.exception("metrics.part_fault", part=name)
                health.add_metric([name], 0)
        yield health


@cache
def registry() -> CollectorRegistry:
    """A registry of its own: the default one would add the figures of this web process alone."""
    made = CollectorRegistry(auto_describe=False)
    made.register(SluiceCollector())
    return made


def metrics(request: HttpRequest) -> HttpResponse:
    """The text format of Prometheus."""
    return HttpResponse(generate_latest(registry()), content_type=CONTENT_TYPE_LATEST)
