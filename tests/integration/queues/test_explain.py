"""What a job waits for, until when, and when it will start: in every state."""

from __future__ import annotations

import socket

import pytest
import redis

from queues import connection
from queues.models import Job
from queues.selectors.batches import batch_progress
from queues.selectors.explanation import Explanation, explain
from queues.selectors.timeline import timeline
from queues.services import cancel, queue_actions
from queues.states import Status
from quotas import clock
from tests.integration.queues.desk import Desk, failed, fresh


def explained(job: Job) -> Explanation:
    return explain(fresh(job))


def test_next_in_turn_starts_now(desk: Desk) -> None:
    desk.worker()
    first, second = desk.submit(2)
    now = clock.now()
    found = explained(first)
    assert (found.waits_for, found.ahead) == ("its turn", 0)
    assert abs((found.estimated_start - now).total_seconds()) < 30
    found = explained(second)
    assert (found.ahead, found.estimated_start) == (1, None), "nothing has ended to reckon with"


def test_what_stands_behind_others_starts_at_todays_pace(desk: Desk) -> None:
    worker = desk.worker(places=100)
    desk.submit(20)
    desk.run_until_done(worker)
    last = desk.submit(40)[-1]
    found = explained(last)
    assert found.ahead == 39
    assert found.estimated_start > clock.now()


def test_a_pause_holds_at_once_and_its_end_too(desk: Desk) -> None:
    """Also where this process remembers the queue as it was before."""
    queue = desk.queue("q")
    desk.worker()
    (job,) = desk.submit(queue="q")
    queue_actions.pause(queue, actor="t", reason="maintenance")
    found = explained(job)
    assert found.waits_for == "queue q to be resumed: maintenance"
    assert (found.until, found.estimated_start) == (None, None)
    queue_actions.resume(queue, actor="t", reason="done")
    assert explained(job).waits_for == "its turn"


def test_a_queue_that_runs_all_it_may_says_so(desk: Desk) -> None:
    desk.queue("one", concurrency=1)
    desk.queue("none", concurrency=0)
    worker = desk.worker()
    _, second = desk.submit(2, queue="one")
    desk.cycle()
    worker.claim()
    assert explained(second).waits_for == "a slot in queue one, which runs 1 at once"
    (never,) = desk.submit(queue="none")
    assert explained(never).waits_for == "queue none to run anything: its concurrency is 0"
    assert explained(never).estimated_start is None


def test_without_a_worker_it_waits_for_one(desk: Desk) -> None:
    (job,) = desk.submit()
    assert explained(job).waits_for == "a worker of the lane io: none is alive"


def test_a_limit_is_named_with_its_end(desk: Desk) -> None:
    desk.policy("hourly", "project", 1)
    desk.worker()
    first, second = desk.submit(2)
    desk.cycle()
    found = explained(second)
    assert found.status == Status.RATE_LIMITED
    assert found.waits_for == "policy hourly"
    assert found.until is not None
    assert found.estimated_start == found.until
    assert explained(first).waits_for in (None, "a free thread of a worker")


def test_a_time_and_a_retry_have_theirs(desk: Desk) -> None:
    (timed,) = desk.submit(delay=60)
    found = explained(timed)
    assert found.waits_for == "its time"
    assert found.until == found.estimated_start == timed.not_before
    (job,) = desk.submit(max_attempts=3)
    worker = desk.worker()
    desk.cycle()
    worker.settle(worker.claim(), failed("server"))
    found = explained(job)
    assert found.waits_for.startswith("server: it broke; attempt 2 of 3 in ")
    assert found.until == fresh(job).not_before


def test_what_runs_or_has_ended_waits_for_nothing(desk: Desk) -> None:
    (job,) = desk.submit()
    worker = desk.worker()
    desk.cycle()
    assert explained(job).waits_for == "a free thread of a worker"
    worker.claim()
    assert (explained(job).waits_for, explained(job).estimated_start) == (None, None)
    worker.settle()
    assert (explained(job).waits_for, explained(job).until) == (None, None)


def test_a_batch_in_a_paused_queue_says_what_binds_it(desk: Desk) -> None:
    from queues.models import Batch
    from queues.services import batches
    from queues.specs import read_job

    queue = desk.queue("q")
    queue_actions.pause(queue, actor="t", reason="r")
    batches.submit_bulk(desk.project(), [read_job({"type": "test.echo", "queue": "q"})])
    assert batch_progress(Batch.objects.get()).binding == "queue q is paused"


def test_who_cancelled_what_ran_and_why_stays_explained(desk: Desk) -> None:
    (job,) = desk.submit()
    worker = desk.worker()
    desk.cycle()
    worker.claim()
    cancel.cancel(job.pk, actor="key:ops", reason="wrong customer")
    worker.settle(result=failed("server"))
    row = fresh(job)
    assert (row.status, row.reason) == (Status.CANCELLED, "cancelled by key:ops: wrong customer, while it ran")
    steps = [(step.state, step.reason) for step in timeline(row)]
    assert ("executing", "cancel requested by key:ops: wrong customer") in steps
    assert steps[-1] == ("cancelled", "cancelled by key:ops: wrong customer, while it ran")


def test_where_redis_hangs_only_the_first_finds_out(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Published waits are a hint: pages that show them don't wait for Redis one after the other."""
    desk.worker()
    (job,) = desk.submit()
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        asked = []

        def hurried() -> redis.Redis:
            asked.append(1)
            return redis.Redis(
                port=hanging.getsockname()[1],
                socket_timeout=connection.HINT_TIMEOUT,
                socket_connect_timeout=connection.HINT_TIMEOUT,
            )

        monkeypatch.setattr(connection, "_hint_client", hurried)
        monkeypatch.setattr(connection, "HINT_PAUSE", 600.0)
        monkeypatch.setattr(connection, "_hints_paused_until", float("-inf"))
        assert [explained(job).waits_for for _ in range(3)] == ["its turn"] * 3
    assert len(asked) == 1
