"""What a job's page keeps: the payload that failed, waits that are over, deaths before a replay, honest estimates."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest

from controlplane.models import AuditEntry
from queues.models import Batch, DeadLetter, Job
from queues.selectors.batches import batch_progress
from queues.selectors.explanation import explain
from queues.selectors.timeline import timeline
from queues.services import dead_letters
from queues.states import Status
from quotas import clock
from tests.integration.queues.desk import Desk, failed, fresh


def die(desk: Desk, **given: Any) -> tuple[Job, DeadLetter]:
    (job,) = desk.submit(max_attempts=1, **given)
    worker = desk.worker()
    desk.cycle()
    worker.settle(worker.claim(), failed("server"))
    return fresh(job), DeadLetter.objects.get(job=job, handled_at=None)


def test_an_edited_replay_keeps_the_payload_that_failed(desk: Desk) -> None:
    job, letter = die(desk)
    old = job.payload
    new = {**old, "value": "another"}
    dead_letters.replay(letter.pk, actor="user:ann", reason="typo", payload=new)
    letter.refresh_from_db()
    assert (letter.payload, fresh(job).payload) == (old, new)
    entry = AuditEntry.objects.get(verb="dead_letter.replay")
    assert (entry.before["payload"], entry.after["payload"]) == (old, new)


def test_a_replay_without_an_edit_keeps_no_second_copy(desk: Desk) -> None:
    _, letter = die(desk)
    dead_letters.replay(letter.pk, actor="user:ann")
    letter.refresh_from_db()
    assert letter.payload is None
    assert "payload" not in AuditEntry.objects.get(verb="dead_letter.replay").before


def test_a_death_before_a_replay_stays_on_the_timeline(desk: Desk) -> None:
    job, letter = die(desk)
    states = [step.state for step in timeline(job)]
    assert states.count("dead") == 1
    dead_letters.replay(letter.pk, actor="user:ann")
    steps = timeline(fresh(job))
    assert [step.state for step in steps].count("dead") == 1
    assert [step.state for step in steps][-1] == "pending"


def test_a_wait_that_is_over_stays_on_the_timeline(desk: Desk) -> None:
    desk.policy("hourly", "project", 1)
    worker = desk.worker()
    first, second = desk.submit(2)
    desk.cycle()
    worker.settle(worker.claim())
    assert fresh(second).status == Status.RATE_LIMITED
    for _ in range(25):
        desk.skip(5.0)
        worker.beat()
        desk.cycle()
    from quotas.models import Policy
    from quotas.snapshot import resolve

    Policy.objects.all().delete()
    resolve.clear()
    desk.cycle()
    worker.settle(worker.claim())
    steps = timeline(fresh(second))
    (released,) = [step.reason for step in steps if "; released after" in step.reason]
    assert "; released after 2 min " in released
    assert "policy limit hourly" in released
    assert [step.state for step in steps][-1] == "completed"
    assert [step.state for step in steps] == ["pending", "rate_limited", "executing", "completed"]
    assert "policy" not in str(timeline(fresh(first)))


@pytest.mark.parametrize(("algorithm", "window"), [("fixed_window", 3600), ("sliding_window", 3600)])
def test_estimates_take_the_binding_window_into_account(desk: Desk, algorithm: str, window: int) -> None:
    """100 jobs of which 10 an hour may start: the last one starts nine windows after the first, whatever the pace was."""
    desk.policy("hourly", "project", 10, algorithm=algorithm, window=window)
    worker = desk.worker(places=100)
    jobs = desk.submit(100)
    batch = Batch.objects.create(project=jobs[0].project, created_at=clock.now())
    Job.objects.filter(pk__in=[job.pk for job in jobs]).update(batch=batch)
    desk.cycle()
    worker.settle(worker.claim())
    assert Job.objects.filter(status=Status.COMPLETED).count() == 10
    desk.cycle()
    last = fresh(jobs[-1])
    found = explain(last)
    until = found.until
    assert found.waits_for == "policy hourly" and until is not None
    passes = math.ceil(90 / 10) - 1
    # A use of a sliding window counts until the part of 1/60 in which it began lies a whole window back.
    cycle = window * 61 / 60 if algorithm == "sliding_window" else window
    assert abs((found.estimated_start - until).total_seconds() - passes * cycle) < 5
    facts = batch_progress(batch)
    assert facts.binding == "policy hourly"
    assert facts.eta >= found.estimated_start - timedelta(seconds=5)


def batch_of(jobs: list[Job]) -> Batch:
    batch = Batch.objects.create(project=jobs[0].project, created_at=clock.now())
    Job.objects.filter(pk__in=[job.pk for job in jobs]).update(batch=batch)
    return batch


def test_a_batch_behind_other_jobs_of_its_pool_ends_when_its_last_job_starts(desk: Desk) -> None:
    desk.queue(pool=desk.pool(limits=[{"unit": "requests", "algorithm": "fixed_window", "limit": 2, "window": 3600.0}]))
    worker = desk.worker(places=100)
    jobs = desk.submit(20, queue="q")
    batch = batch_of(jobs[-3:])
    desk.cycle()
    worker.settle(worker.claim())
    desk.cycle()
    start = explain(fresh(jobs[-1])).estimated_start
    end = batch_progress(batch).eta
    assert start is not None and end is not None
    assert start > clock.now() + timedelta(hours=5), "17 others come before"
    assert abs(end - start) < timedelta(seconds=60)


def test_a_batch_does_not_end_before_the_time_of_its_jobs(desk: Desk) -> None:
    worker = desk.worker()
    jobs = desk.submit(2)
    later = desk.submit(1, delay=7200)[0]
    batch = batch_of([*jobs, later])
    desk.cycle()
    worker.settle(worker.claim())
    end = batch_progress(batch).eta
    assert end is not None and end >= explain(fresh(later)).estimated_start


def test_an_end_under_a_limit_that_the_rows_do_not_show_is_unknown(desk: Desk) -> None:
    desk.policy("each chat", "custom", 1, key_name="chat")
    worker = desk.worker(places=10)
    jobs = desk.submit(5, keys={"chat": "7"})
    batch = Batch.objects.create(project=jobs[0].project, created_at=clock.now())
    Job.objects.filter(pk__in=[job.pk for job in jobs]).update(batch=batch)
    desk.cycle()
    worker.settle(worker.claim())
    desk.cycle()
    facts = batch_progress(batch)
    assert facts.rate > 0 and facts.binding == "policy each chat"
    assert facts.eta is None
