"""Rules that several parts share have one definition: events of requeued jobs, live workers, the clock of group waits."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from django.core.cache import cache

from queues import connection, liveness, wait_reasons
from queues.admin.worker import WorkerAdmin
from queues.models import WorkerProcess
from queues.states import CLAIM_EXPIRY, GroupKey
from queues.worker.requeue import requeue_unfinished
from quotas import clock, events
from quotas.testing import capture_events
from tests.integration.queues.desk import Desk

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_requeued_job_emits_its_event(desk: Desk, type_of: object) -> None:
    desk.submit()
    worker = desk.worker("w1")
    desk.cycle()
    claimed = worker.claim()
    with capture_events(events.JobChanged) as seen:
        requeue_unfinished(claimed, "w1")
    assert [(event.job, event.status) for event in seen] == [(claimed[0].job.uid, "pending")]


@pytest.mark.parametrize(("silent", "alive"), [(14, True), (16, False), (29, False)])
def test_every_part_calls_the_same_worker_lost(desk: Desk, silent: int, alive: bool) -> None:
    from controlplane.health import readiness
    from controlplane.observability import queue_metrics

    cache.clear()
    desk.worker("w1")
    WorkerProcess.objects.update(seen_at=clock.now() - timedelta(seconds=silent))
    row = WorkerProcess.objects.get()
    assert liveness.is_alive(row, clock.now()) is alive
    assert liveness.alive(clock.now()).exists() is alive
    assert (readiness._workers() == "") is alive
    states = {sample.labels["state"]: sample.value for sample in queue_metrics._workers().samples}
    assert (states["lost"] == 0) is alive
    admin = WorkerAdmin(WorkerProcess, None)  # type: ignore[arg-type]
    assert (admin.state(row) != "lost") is alive


def test_a_claim_expires_when_its_worker_counts_as_lost() -> None:
    assert CLAIM_EXPIRY == liveness.LOST_AFTER


def test_group_waits_are_judged_by_the_clock_of_redis(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    group = GroupKey(1, 5, 1, "llm")
    here = time.time
    monkeypatch.setattr(time, "time", lambda: here() + 3600.0)  # this host's clock is an hour ahead
    wait_reasons.publish({group: wait_reasons.Binding("policy_limit", "policy rpm", "rpm", 30.0)})
    monkeypatch.setattr(time, "time", lambda: here() - 3600.0)
    wait = wait_reasons.read_group_waits([group])[group]
    assert wait.until is not None
    assert connection.server_time() < wait.until.timestamp() <= connection.server_time() + 30.0
