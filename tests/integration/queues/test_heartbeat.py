"""A worker's own row in SQL."""

from __future__ import annotations

import pytest

from queues.models import WorkerProcess
from queues.worker.heartbeat import Heartbeat


@pytest.mark.django_db
def test_a_worker_whose_row_was_pruned_while_it_slept_is_seen_again() -> None:
    report = Heartbeat("sleeper", "io", 7)
    report.begin()
    report.done = 3
    WorkerProcess.objects.all().delete()
    report.beat([])
    row = WorkerProcess.objects.get(name="sleeper")
    assert (row.lane, row.places, row.jobs_done, row.stopped_at) == ("io", 7, 3, None)
