"""How the upstream accounts are doing, from the copy in SQL that is at most seconds old."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from quotas.models import Account

BREAKER = {"closed": 0, "half_open": 1, "open": 2}


def collect() -> Iterator[Metric]:
    requests = CounterMetricFamily(
        "sluice_account_requests", "Calls by how they ended.", labels=["pool", "account", "outcome"]
    )
    health = GaugeMetricFamily("sluice_account_health", "Health score, 0 to 1.", labels=["pool", "account"])
    breaker = GaugeMetricFamily("sluice_breaker_state", "0 closed, 1 half open, 2 open.", labels=["pool", "account"])
    columns = ("pool__name", "name", "successes", "errors", "health", "state")
    for pool, name, successes, errors, score, state in Account.objects.values_list(*columns):
        requests.add_metric([pool, name, "ok"], successes)
        for category, count in errors.items():
            requests.add_metric([pool, name, category], count)
        health.add_metric([pool, name], score)
        breaker.add_metric([pool, name], BREAKER.get(state, 0))
    yield requests
    yield health
    yield breaker
