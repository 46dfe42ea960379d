"""Metrics of the accounts, from their state in Redis."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from quotas.models import Pool
from quotas.runtime.connection import accounts
from quotas.snapshot import resolve

BREAKER = {"half_open": 1, "open": 2}


def collect() -> Iterator[Metric]:
    labels = ["pool", "account"]
    requests = CounterMetricFamily("sluice_account_requests", "Calls by how they ended.", labels=[*labels, "outcome"])
    skips = CounterMetricFamily("sluice_account_skips", "Times passed over, by why.", labels=[*labels, "reason"])
    health = GaugeMetricFamily("sluice_account_health", "Health score, 0 to 1.", labels=labels)
    flight = GaugeMetricFamily("sluice_account_in_flight", "Calls in progress.", labels=labels)
    breaker = GaugeMetricFamily("sluice_breaker_state", "0 closed, 1 half open, 2 open.", labels=labels)
    for pool in Pool.objects.values_list("name", flat=True):
        for state in accounts().states(resolve.pool_spec(pool)):
            names = [pool, state.name]
            requests.add_metric([*names, "ok"], state.successes)
            for category, count in state.errors.items():
                requests.add_metric([*names, category], count)
            for reason, count in state.skips.items():
                skips.add_metric([*names, reason], count)
            health.add_metric(names, state.health)
            flight.add_metric(names, state.in_flight)
            breaker.add_metric(names, BREAKER.get(state.state, 0))
    yield from (requests, skips, health, flight, breaker)
