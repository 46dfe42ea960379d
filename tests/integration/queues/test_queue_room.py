"""The room of a queue, while submits run at the same time. `test_submit` covers small queues, whose lock is never shared."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from django.db import connection, connections, transaction
from django.test.utils import CaptureQueriesContext

from queues.errors import QueueDraining, QueueFull
from queues.lifecycle.delivery import release_again
from queues.models import DeadLetter, Job, Queue
from queues.services import dead_letters, queue_actions, queue_room
from queues.services.submit import submit_specs
from queues.specs import JobSpec, read_job
from queues.states import Stage
from quotas import clock
from tests.integration.queues.desk import Desk, failed
from tests.integration.queues.test_submit import at_once

DEADLINE = 30.0
only_postgres = pytest.mark.skipif(
    "connection.vendor != 'postgresql'", reason="on SQLite the transaction itself is the lock"
)


def specs(count: int) -> list[JobSpec]:
    return [read_job({"type": "test.echo", "queue": "q"}) for _ in range(count)]


def beside(act: Any) -> threading.Thread:
    """A thread that has a connection of its own."""

    def run() -> None:
        try:
            act()
        finally:
            connections.close_all()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


@only_postgres
def test_a_small_submit_does_not_wait_for_the_commit_of_another(desk: Desk) -> None:
    queue = desk.queue("q", max_size=100_000)
    project = desk.project()
    with transaction.atomic():
        queue_room.lock(queue.pk, shared=True)  # a submit that is not committed yet
        other = beside(lambda: submit_specs(project, specs(1)))
        other.join(DEADLINE)
        assert not other.is_alive()
        assert Job.objects.filter(queue=queue).count() == 1


@only_postgres
@pytest.mark.parametrize(("max_size", "count"), [(100_000, 50), (20, 1)], ids=["a bulk", "near the maximum"])
def test_others_wait_until_it_is_committed(desk: Desk, max_size: int, count: int) -> None:
    queue = desk.queue("q", max_size=max_size)
    project = desk.project()
    with transaction.atomic():
        queue_room.lock(queue.pk, shared=True)
        other = beside(lambda: submit_specs(project, specs(count)))
        while not _is_waited_for():
            assert other.is_alive(), "it did not wait"
        assert not Job.objects.exists()
    other.join(DEADLINE)
    assert Job.objects.filter(queue=queue).count() == count


@only_postgres
def test_a_drain_waits_for_submits_and_none_follows_it(desk: Desk) -> None:
    queue = desk.queue("q", max_size=100_000)
    project = desk.project()
    with transaction.atomic():
        queue_room.lock(queue.pk, shared=True)
        drain = beside(lambda: queue_actions.drain(queue, actor="test", reason="test"))
        while not _is_waited_for():
            assert drain.is_alive(), "it did not wait"
        assert Queue.objects.get(pk=queue.pk).draining_at is None
    drain.join(DEADLINE)
    with pytest.raises(QueueDraining):
        submit_specs(project, specs(1))


def test_small_submits_and_bulks_fill_the_queue_exactly(desk: Desk) -> None:
    """The queue begins where the lock is shared and ends where it is not."""
    room = queue_room._reserve() + 150
    desk.queue("q", max_size=room)
    project = desk.project()
    submit_specs(project, specs(40))

    def one(turn: int) -> list[int]:
        taken = []
        for number in range(room):
            count = 1 if number % 4 else 90
            try:
                taken.append(len(submit_specs(project, specs(count))))
            except QueueFull:
                if count == 1:
                    break
        return taken

    answers = at_once(8, one, threads=8)
    assert not [answer for answer in answers if isinstance(answer, Exception)]
    assert sum(map(sum, answers)) == room - 40
    assert Job.objects.filter(stage=Stage.READY).count() == room


def test_two_submits_in_one_transaction_of_the_caller(desk: Desk) -> None:
    desk.queue("q", max_size=queue_room._reserve() + 20)
    project = desk.project()

    def one(turn: int) -> None:
        with transaction.atomic():
            submit_specs(project, specs(5))
            submit_specs(project, specs(5))

    answers = at_once(4, one, threads=4)
    full = [answer for answer in answers if isinstance(answer, QueueFull)]
    assert [answer for answer in answers if answer is not None] == full
    assert Job.objects.count() == 10 * (len(answers) - len(full))


def test_far_below_the_maximum_a_submit_counts_no_jobs(desk: Desk) -> None:
    desk.queue("q", max_size=queue_room._reserve() * 2 + 1_000)
    project = desk.project()
    submit_specs(project, specs(1))
    with CaptureQueriesContext(connection) as sent:
        submit_specs(project, specs(3))
        submit_specs(project, specs(150))
    assert len(sent) > 4
    assert not [query["sql"] for query in sent if "COUNT(*)" in query["sql"].upper()]


def test_a_long_queue_is_not_counted_beyond_its_maximum(desk: Desk) -> None:
    queue = desk.queue("q", max_size=None)
    project = desk.project()
    submit_specs(project, specs(60))
    Queue.objects.filter(pk=queue.pk).update(max_size=20)
    with CaptureQueriesContext(connection) as sent, pytest.raises(QueueFull):
        submit_specs(project, specs(1))
    counts = [query["sql"] for query in sent if "COUNT(*)" in query["sql"].upper()]
    assert counts
    assert all(" LIMIT " in sql for sql in counts)


@pytest.mark.parametrize("how", ["replayed", "lost by the belt"])
def test_jobs_that_come_back_fill_the_queue_too(desk: Desk, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """No job was inserted for them since the last count."""
    monkeypatch.setattr(queue_room, "_sessions", 0)  # no other session submits
    desk.queue("q", max_size=6)
    worker = desk.worker()
    desk.submit(3, queue="q", max_attempts=1)
    desk.cycle()
    if how == "replayed":
        worker.claim()
        worker.settle(result=failed("code", final=True))
    queue_room._counted.clear()
    desk.submit(3, queue="q")  # which counts
    assert Job.objects.filter(stage=Stage.READY).count() == 3
    if how == "replayed":
        for letter in DeadLetter.objects.all():
            dead_letters.replay(letter.pk, actor="test", reason="test")
    else:
        release_again(set(Job.objects.filter(stage=Stage.BELT).values_list("pk", "delivery")), clock.now())
    assert Job.objects.filter(stage=Stage.READY).count() == 6
    with pytest.raises(QueueFull):
        desk.submit(1, queue="q")


def _is_waited_for() -> bool:
    """Whether a session waits for the advisory lock of a queue."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND classid = %s",
            [queue_room.LOCK],
        )
        return bool(cursor.fetchone()[0])
