"""The number of the gateway's open calls, over all processes."""

from __future__ import annotations

import time

import pytest

from controlplane.observability import call_counts
from tests.integration.queues.conftest import wait_until


@pytest.mark.parametrize("ahead", [3600.0, -3600.0])
def test_open_calls_are_counted_whatever_the_clock_of_a_host_says(
    monkeypatch: pytest.MonkeyPatch, ahead: float
) -> None:
    monkeypatch.setattr(call_counts, "WRITE_INTERVAL", 0.05)
    streams, own = call_counts.OpenCalls(), time.time
    with monkeypatch.context() as skewed:
        skewed.setattr(time, "time", lambda: own() + ahead)
        streams.began()
        wait_until(lambda: call_counts.open_calls() == 1)
    assert call_counts.open_calls() == 1
    streams.ended()
    wait_until(lambda: call_counts.open_calls() == 0)
