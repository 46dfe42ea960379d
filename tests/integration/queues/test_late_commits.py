"""Jobs whose transaction was committed after one that began later are released all the same; PostgreSQL shows them so."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from django.db import connection, connections, transaction

from queues import wakeups
from queues.dispatcher import dispatcher
from queues.models import BulkAction, Job
from queues.services import bulk_actions, bulk_records
from queues.states import Stage, Status
from tests.integration.queues.desk import Desk, fresh

DEADLINE = 30.0
pytestmark = pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite has one writer at a time")


@contextmanager
def uncommitted(act: Callable[[], object]) -> Iterator[None]:
    """`act` in a transaction of another session that is committed at the end of the block."""
    done, may_commit = threading.Event(), threading.Event()

    def run() -> None:
        try:
            with transaction.atomic():
                act()
                done.set()
                may_commit.wait(DEADLINE)
        finally:
            done.set()
            connections.close_all()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert done.wait(DEADLINE)
    yield
    may_commit.set()
    thread.join(DEADLINE)


def bulk_cancel() -> BulkAction:
    return bulk_actions.begin("cancel", {}, project=None, actor="test", reason="test", target=bulk_records.JOBS)


def process() -> None:
    while bulk_actions.process_next_slice():
        pass


def released() -> set[int]:
    return set(Job.objects.filter(stage=Stage.BELT).values_list("pk", flat=True))


@pytest.mark.parametrize("woken", [True, False], ids=["by its wake-up", "without a wake-up"])
def test_a_job_with_a_smaller_id_that_is_committed_later(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, woken: bool
) -> None:
    desk.queue("q", max_size=None)
    desk.worker(places=50)
    desk.submit(2, queue="q")
    desk.cycle()
    late: list[Job] = []
    with uncommitted(lambda: late.extend(desk.submit(3, queue="q"))):
        (after,) = desk.submit(queue="q")
        assert after.pk > max(job.pk for job in late)
        desk.cycle(anew=False)
        assert after.pk in released()
    if not woken:
        wakeups.wait(0)  # it is lost
        monkeypatch.setattr(dispatcher, "GROUP_REFRESH", 0.0)
    desk.cycle(anew=False)
    assert {job.pk for job in late} <= released()


def test_a_bulk_action_passes_over_no_job_that_is_committed_later(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk_actions, "CANCEL_SLICE", 2)
    desk.project()
    desk.queue("q", max_size=None)
    late: list[Job] = []
    with uncommitted(lambda: late.extend(desk.submit(3, queue="q"))):
        before = desk.submit(3, queue="q")
        action = bulk_cancel()
        (after,) = desk.submit(queue="q")
        process()
        assert {fresh(job).status for job in before} == {Status.CANCELLED}
        action.refresh_from_db()
        assert action.finished_at is None, "a transaction that began before it is not committed yet"
    process()
    action.refresh_from_db()
    assert {fresh(job).status for job in late} == {Status.CANCELLED}
    assert (action.total, action.done, action.skipped) == (6, 6, 0)
    assert action.finished_at is not None
    assert fresh(after).status == Status.PENDING, "it was submitted after the action"


def test_a_bulk_action_does_not_wait_for_ever(desk: Desk) -> None:
    desk.project()
    desk.queue("q", max_size=None)
    late: list[Job] = []
    with uncommitted(lambda: late.extend(desk.submit(1, queue="q"))):
        action = bulk_cancel()
        process()
        desk.skip(bulk_actions.LONGEST_WAIT.total_seconds())
        process()
        action.refresh_from_db()
        assert action.finished_at is not None
