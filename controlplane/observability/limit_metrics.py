"""Decisions of limits, their durations, and the use of each limit."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from controlplane.observability import check_counts
from controlplane.observability.buckets import cumulative
from quotas.runtime.counters import Field
from quotas.services.usage import Selection, ratio, usage

MAX_SUBJECTS = 5_000
"""Subjects that are read for the ratio of use."""


def collect() -> Iterator[Metric]:
    check_counts.counter.flush()
    yield from _checks(check_counts.counter.read())
    yield _ratios()


def _checks(sums: dict[Field, float]) -> Iterator[Metric]:
    total = CounterMetricFamily(
        "sluice_limit_checks", "Checks of a policy, by their outcome.", labels=["policy", "scope", "outcome"]
    )
    seconds: dict[int | str, float] = {}
    for (family, *labels), value in sorted(sums.items()):
        if family == "total":
            total.add_metric(labels, value)
        else:
            seconds[int(labels[0]) if labels[0].isdigit() else labels[0]] = value
    histogram = HistogramMetricFamily("sluice_limit_check_seconds", "Time that a call to the limiter took.")
    if seconds:
        histogram.add_metric([], cumulative(check_counts.BOUNDS, seconds), seconds.get("sum", 0.0))
    yield total
    yield histogram


def _ratios() -> Metric:
    family = GaugeMetricFamily(
        "sluice_quota_used_ratio", "Use by limit, of the subject nearest to it.", labels=["policy", "project"]
    )
    most: dict[tuple[str, str], float] = {}
    for state in usage(Selection(), most=MAX_SUBJECTS):
        if state.limit:
            place = (state.policy, state.partition)
            most[place] = max(most.get(place, 0.0), ratio(state) or 0.0)
    for (policy, project), most_used in sorted(most.items()):
        family.add_metric([policy, project], most_used)
    return family
