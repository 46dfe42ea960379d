"""A leader that sleeps for long while nothing happens: what is due, and a stop, end the sleep."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest

from queues.dispatcher import dispatcher as dispatcher_module
from queues.models import Job, Recurring
from quotas import clock
from tests.integration.queues.conftest import wait_until
from tests.integration.queues.desk import Desk

LONG = 600.0


@pytest.fixture
def leading(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> threading.Thread:
    """A dispatcher's thread that sleeps for ten minutes where nothing is to be done."""
    monkeypatch.setattr(dispatcher_module, "IDLE_SLEEP", LONG)
    return threading.Thread(target=desk.dispatcher.run)


def end(desk: Desk, leading: threading.Thread) -> None:
    desk.dispatcher.stop()
    leading.join(20)
    assert not leading.is_alive()


def test_a_stop_ends_the_sleep_of_a_leader(desk: Desk, leading: threading.Thread) -> None:
    leading.start()
    wait_until(lambda: desk.dispatcher.leader.token is not None)
    end(desk, leading)
    assert desk.dispatcher.leader.token is None, "it has resigned"


def test_a_recurring_job_and_a_scheduled_one_come_in_time(desk: Desk, leading: threading.Thread) -> None:
    soon = clock.now() + timedelta(seconds=1.5)
    Recurring.objects.create(
        name="soon", project=desk.project(), type="test.fail", cron="0 0 1 1 *", timezone="UTC", next_at=soon
    )
    (scheduled,) = desk.submit(run_at=soon.isoformat())
    leading.start()
    try:
        wait_until(lambda: Job.objects.filter(type="test.fail").exists(), 30)
        wait_until(lambda: Job.objects.get(pk=scheduled.pk).stage != "scheduled", 30)
    finally:
        end(desk, leading)
