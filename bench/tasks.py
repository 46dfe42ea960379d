"""Jobs for the benchmarks: `SLUICE_TASK_MODULES=bench.tasks`."""

from __future__ import annotations

import time

from queues import task
from queues.registry import JobContext


@task(name="bench.sleep", queue="batch")
def sleep(job: JobContext, seconds: float = 0.05) -> None:
    """An I/O-bound job: waits and returns nothing."""
    time.sleep(seconds)


@task(name="bench.nothing", queue="batch")
def nothing(job: JobContext) -> None:
    """What a job costs that does nothing."""
