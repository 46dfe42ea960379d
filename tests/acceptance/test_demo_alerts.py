"""A healthy demo raises no alert: neither while it starts, nor in its first ten minutes."""

from __future__ import annotations

import time

import pytest

from tests.support.instance import Instance, running
from tests.support.valkey import wait_for


def alerts(instance: Instance) -> list[tuple[str, str, str]]:
    """All of them, open and past."""
    with instance.client() as client:
        answer = client.get("/api/v1/alerts")
        assert answer.status_code == 200, answer.text
        return [(one["kind"], one["subject"], one["summary"]) for one in answer.json()["results"]]


def finished(instance: Instance) -> int:
    with instance.client() as client:
        return len(client.get("/api/v1/jobs", params={"status": "completed", "limit": 100}).json()["results"])


@pytest.mark.parametrize(
    "seconds",
    [20, pytest.param(600, marks=[pytest.mark.long, pytest.mark.timeout(900)])],
    ids=["at its start", "in ten minutes"],
)
def test_a_healthy_demo_raises_none(seconds: int) -> None:
    with running("--demo", migrated=True) as instance:
        until = time.monotonic() + seconds
        wait_for(lambda: finished(instance) >= 30, timeout=60)  # limits are in use, so that thresholds are reached
        wait_for(lambda: time.monotonic() >= until or bool(alerts(instance)), timeout=seconds + 5)
        assert alerts(instance) == []
