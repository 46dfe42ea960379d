"""The gateway's calls: how many, how they ended, how long they waited, what the gateway itself added."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from controlplane.observability import call_counts
from controlplane.observability.buckets import cumulative

_COUNTERS = {
    "requests": ("requests", "Calls by how they ended.", ["pool", "project", "outcome"]),
    "failovers": ("failovers", "Calls sent to another account, each time.", ["pool"]),
    "tokens": ("tokens", "Tokens that calls have used.", ["pool", "project"]),
    "cached_tokens": ("cached_tokens", "Tokens of prompts that providers had cached.", ["pool", "project"]),
}
_HISTOGRAMS = {
    "overhead": ("overhead_seconds", "Time that the gateway added before the first byte.", call_counts.OVERHEAD),
    "first_byte": ("first_byte_seconds", "Time to the first byte of a body.", call_counts.FIRST_BYTE),
    "wait": ("wait_seconds", "Time that calls waited to be admitted.", call_counts.WAIT),
}


def collect() -> Iterator[Metric]:
    counters = {
        family: CounterMetricFamily(f"sluice_gateway_{name}", text, labels=labels)
        for family, (name, text, labels) in _COUNTERS.items()
    }
    buckets: dict[str, dict[Any, float]] = {family: {} for family in _HISTOGRAMS}
    call_counts.counter.flush()
    for (family, *labels), value in sorted(call_counts.counter.read().items()):
        if family in counters:
            counters[family].add_metric(labels, value)
        elif family in buckets:
            buckets[family][labels[0] if labels[0] == "sum" else int(labels[0])] = value
    yield from counters.values()
    for family, (name, text, bounds) in _HISTOGRAMS.items():
        histogram = HistogramMetricFamily(f"sluice_gateway_{name}", text)
        if seen := buckets[family]:
            histogram.add_metric([], cumulative(bounds, seen), seen.get("sum", 0.0))
        yield histogram
    streams = GaugeMetricFamily("sluice_gateway_streams", "Calls in progress.")
    streams.add_metric([], call_counts.open_calls())
    yield streams
