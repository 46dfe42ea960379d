"""Ends of deliveries in SQL: fenced, whole, whatever the answer contains."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest
from django.db import DatabaseError, OperationalError, connection
from django.test.utils import CaptureQueriesContext

from queues.deliveries import Ended
from queues.errors import JobError
from queues.lifecycle.delivery import finish as settle
from queues.models import Attempt, DeadLetter, Job
from queues.registry import RunResult
from queues.states import Stage, Status
from quotas import clock
from quotas.engine.types import CallOutcome
from tests.integration.queues.desk import OK, Desk, failed, fresh


def test_a_job_goes_all_the_way(desk: Desk) -> None:
    (job,) = desk.submit(payload={"a": 1})
    worker = desk.worker()
    desk.cycle()
    assert fresh(job).stage == Stage.BELT
    worker.claim()
    assert fresh(job).status == Status.EXECUTING
    worker.run()
    done = fresh(job)
    assert (done.status, done.stage, done.result) == (Status.COMPLETED, Stage.DONE, {"attempt": 1, "a": 1})
    assert (done.attempts_made, done.attempts_counted, done.worker, done.lease_until) == (1, 0, "", None)
    assert [(row.number, row.outcome) for row in job.attempts.all()] == [(1, "succeeded")]


def test_a_second_settle_changes_nothing(desk: Desk) -> None:
    (job,) = desk.submit()
    worker = desk.worker()
    desk.cycle()
    (claimed,) = worker.claim()
    assert worker.settle([claimed]) == 1
    before = Job.objects.filter(pk=job.pk).values().get()
    assert worker.settle([claimed], failed()) == 0
    assert Job.objects.filter(pk=job.pk).values().get() == before
    assert Attempt.objects.filter(job=job).count() == 1


def test_a_stale_owner_changes_nothing(desk: Desk) -> None:
    """Claimed, declared lost, delivered anew: the first owner wakes up and settles."""
    (job,) = desk.submit()
    first = desk.worker("w1")
    desk.cycle()
    (stale,) = first.claim()
    desk.skip(30)
    desk.reconcile()
    assert fresh(job).stage == Stage.READY
    assert first.settle([stale], failed()) == 0, "nobody owns it now"
    second = desk.worker("w2", "cpu")  # a lost job of a Python task is a suspect
    desk.cycle()
    (fresh_one,) = second.claim()
    assert fresh_one.delivery == stale.delivery + 1
    before = Job.objects.filter(pk=job.pk).values().get()
    assert first.settle([stale], failed()) == 0, "another one owns it now"
    assert Job.objects.filter(pk=job.pk).values().get() == before
    assert second.settle([fresh_one]) == 1
    assert fresh(job).status == Status.COMPLETED
    assert list(Attempt.objects.filter(job=job).values_list("number", "outcome", "counted")) == [
        (1, "lost", False),
        (2, "succeeded", True),
    ]


def test_the_same_worker_may_hold_an_old_and_a_new_delivery_of_one_job(desk: Desk) -> None:
    """Both end in one batch of settles: the new one counts, in whichever order they come."""
    for turn in (0, 1):
        (job,) = desk.submit()
        worker = desk.worker("w1")
        desk.cycle()
        (stale,) = worker.claim()
        desk.skip(30)
        desk.reconcile()
        Job.objects.filter(pk=job.pk).update(suspect=False)
        worker.report.begin()
        desk.cycle()
        (current,) = worker.claim()
        ended = [Ended(stale, failed()), Ended(current, OK)]
        assert settle(ended if turn else ended[::-1], "w1") == 1
        assert fresh(job).status == Status.COMPLETED
        worker.claimed_jobs.clear()


def test_a_claim_of_an_old_delivery_is_passed_over(desk: Desk) -> None:
    (job,) = desk.submit()
    worker = desk.worker()
    desk.cycle()
    old = worker.take()
    desk.reconcile()  # the belt has lost it
    worker.report.begin()
    desk.cycle()
    assert worker.claim(old) == []
    (claimed,) = worker.claim()
    assert claimed.delivery == old[0][1] + 1
    assert fresh(job).attempts_made == 1, "a delivery that was never claimed is no attempt"


HOSTILE = ["NUL \x00 inside", "half \ud800 pair", "\x00", "\udfff"]


@pytest.mark.parametrize("text", HOSTILE, ids=["nul", "half", "nul-only", "half-only"])
def test_no_answer_and_no_error_is_too_strange_to_be_kept(desk: Desk, text: str) -> None:
    """A settle that SQL refuses for ever would block all that the worker settles after it."""
    first, second, third = desk.submit(3)
    worker = desk.worker()
    desk.cycle()
    one, two, three = worker.claim()
    worker.settle([one], failed("code", text, traceback=text))
    worker.settle([two], failed("code", "plain", result={"status": 500, "body": text, text: 1}))
    worker.settle([three], type(OK)("succeeded", result={"body": [text]}, error=text, traceback=text))
    assert fresh(first).status == Status.DEAD
    assert fresh(first).error
    assert fresh(second).status == Status.DEAD
    assert fresh(third).status == Status.COMPLETED
    assert third.attempts.get().error
    assert DeadLetter.objects.count() == 2


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_none_does_not_stop_a_settle(desk: Desk, number: float) -> None:
    (job,) = desk.submit()
    worker = desk.worker()
    desk.cycle()
    worker.settle(worker.claim(), type(OK)("succeeded", result={"status": 200, "body": {"x": [number]}}))
    assert fresh(job).status == Status.COMPLETED
    assert fresh(job).result["body"] == {"x": [None]}


def test_retries_are_scheduled_and_counted_until_the_letter(desk: Desk) -> None:
    desk.queue("q", retry={"strategy": "fixed", "initial": 2.0, "jitter": 0.0, "max_attempts": 3})
    (job,) = desk.submit(queue="q")
    worker = desk.worker()
    for attempt in (1, 2, 3):
        desk.cycle()
        (claimed,) = worker.claim()
        assert claimed.context.attempt == attempt
        worker.settle([claimed], failed("server", f"try {attempt}"))
        row = fresh(job)
        if attempt < 3:
            assert (row.status, row.stage) == (Status.RETRYING, Stage.SCHEDULED)
            assert f"attempt {attempt + 1} of 3 in 2.0 s" in row.reason
            desk.cycle()
            assert fresh(job).stage == Stage.SCHEDULED, "not before its time"
            desk.skip(2.1)
            worker.report.begin()
    assert (row.status, row.category, row.attempts_counted) == (Status.DEAD, "server", 3)
    letter = DeadLetter.objects.get(job=job)
    assert (letter.category, letter.attempts, letter.error) == ("server", 3, "try 3")


def test_a_rate_limit_is_no_attempt(desk: Desk) -> None:
    desk.queue("q", pool=desk.pool())
    (job,) = desk.submit(max_attempts=1, queue="q")
    worker = desk.worker()
    for _ in range(4):
        desk.cycle()
        limited = type(OK)("rate_limited", category="rate_limited", error="HTTP 429", counted=False)
        worker.settle(worker.claim(), limited)
        assert (fresh(job).status, fresh(job).stage) == (Status.RATE_LIMITED, Stage.READY)
    desk.cycle()
    worker.settle(worker.claim())
    row = fresh(job)
    assert (row.status, row.attempts_made, row.attempts_counted) == (Status.COMPLETED, 5, 0)


@pytest.mark.parametrize(("hint", "waits"), [(40.0, [40.0, 40.0, 40.0]), (None, [60.0, 120.0, 240.0])])
def test_a_limit_that_only_the_task_knows_of_has_its_time(desk: Desk, hint: float | None, waits: list[float]) -> None:
    """Without an account nothing else delays it: it would run again and again."""
    (job,) = desk.submit(max_attempts=1, type="test.fail", payload={"category": "rate_limited", "retry_after": hint})
    worker = desk.worker()
    for attempt, wait in enumerate(waits, 1):
        desk.cycle()
        worker.claim()
        worker.run()
        row = fresh(job)
        assert (row.status, row.stage, row.attempts_counted) == (Status.RATE_LIMITED, Stage.SCHEDULED, 0)
        ended = Attempt.objects.get(job=job, number=attempt).ended_at
        assert wait * 0.89 <= (row.not_before - ended).total_seconds() <= wait * 1.11
        desk.cycle()
        assert worker.claim() == [], "not before its time"
        desk.skip(wait * 1.2)
        worker.report.begin()
    assert Attempt.objects.filter(job=job, outcome="rate_limited").count() == 3


@pytest.mark.parametrize("hint", [math.nan, math.inf, -math.inf, -5.0, 1e300, "soon", True])
@pytest.mark.parametrize("category", ["server", "rate_limited", "no such category" * 10])
def test_whatever_a_task_says_of_its_failure_can_be_settled(desk: Desk, type_of: Any, hint: Any, category: str) -> None:
    def moody(job: Any) -> None:
        raise JobError("moody", category=category, retry_after=hint)

    type_of("test.moody")(moody)
    desk.queue("q", retry={"strategy": "fixed", "initial": 2.0, "jitter": 0.0, "max_attempts": 3})
    (job,) = desk.submit(type="test.moody", queue="q")
    worker = desk.worker()
    desk.cycle()
    worker.claim()
    worker.run()
    row = fresh(job)
    assert (row.status, row.category) == {
        "server": (Status.RETRYING, "server"), "rate_limited": (Status.RATE_LIMITED, "rate_limited"),
    }.get(category, (Status.RETRYING, "code"))  # fmt: skip
    if hint != 1e300 and category == "server":
        assert "in 2.0 s" in row.reason


def test_a_hint_of_the_server_is_waited_for(desk: Desk) -> None:
    (job,) = desk.submit(type="test.fail", payload={"category": "server", "retry_after": 40})
    worker = desk.worker()
    desk.cycle()
    worker.claim()
    worker.run()
    wait = (fresh(job).not_before - Attempt.objects.get(job=job).ended_at).total_seconds()
    assert 40 <= wait <= 44.1


def test_at_most_once_is_not_tried_again_where_nobody_knows_what_happened(desk: Desk) -> None:
    jobs = desk.submit(4, delivery="at_most_once")
    worker = desk.worker()
    desk.cycle()
    for item, category in zip(worker.claim(), ("timeout", "network", "server", "validation"), strict=True):
        worker.settle([item], failed(category))
    assert [fresh(job).status for job in jobs] == [Status.DEAD, Status.DEAD, Status.DEAD, Status.DEAD]


@pytest.mark.parametrize("step", ["release", "claim", "complete"])
def test_the_statements_of_a_step_do_not_grow_with_its_jobs(desk: Desk, step: str) -> None:
    def statements(jobs: int) -> int:
        worker.claimed_jobs.clear()
        desk.submit(jobs)
        with CaptureQueriesContext(connection) as released:
            desk.cycle()
        taken = worker.take()
        with CaptureQueriesContext(connection) as claimed:
            ours = worker.claim(taken)
        assert len(ours) == jobs
        with CaptureQueriesContext(connection) as completed:
            assert worker.settle(ours) == jobs
        return _writes({"release": released, "claim": claimed, "complete": completed}[step])

    worker = desk.worker(places=20)
    assert statements(15) == statements(1) > 0


def _writes(captured: CaptureQueriesContext) -> int:
    """Statements on jobs and their attempts that were run, each row of an `executemany` by itself."""
    found = 0
    for query in captured:
        times, _, rest = query["sql"].partition(" times: ")
        if 'UPDATE "queues_job"' in query["sql"] or 'INSERT INTO "queues_attempt"' in query["sql"]:
            found += int(times) if rest and times.isdigit() else 1
    return found


def test_a_claimed_job_is_the_row_as_the_orm_reads_it(desk: Desk) -> None:
    (job,) = desk.submit(payload={"a": [1, None, "ü"]}, keys={"chat": "7"}, cost={"tokens": 3})
    worker = desk.worker()
    desk.cycle()
    (claimed,) = worker.claim()
    read = Job.objects.get(pk=job.pk)
    for column in Job._meta.concrete_fields:
        ours, theirs = getattr(claimed.job, column.attname), getattr(read, column.attname)
        assert (ours, type(ours)) == (theirs, type(theirs)), column.attname
    assert not claimed.job._state.adding


def test_ends_that_sql_refuses_are_repeated_with_the_same_job(desk: Desk) -> None:
    """A transaction that fails leaves nothing behind in the claimed job, so that the next one writes the same."""
    (job,) = desk.submit()
    worker = desk.worker()
    desk.cycle()
    (claimed,) = worker.claim()
    before = dict(claimed.job.__dict__)
    with pytest.raises(DatabaseError), connection.execute_wrapper(_refuse_attempts):
        settle([Ended(claimed, OK)], "w1")
    assert {**claimed.job.__dict__, "_state": None} == {**before, "_state": None}
    assert fresh(job).status == Status.EXECUTING
    assert worker.settle([claimed]) == 1
    assert fresh(job).status == Status.COMPLETED


def _refuse_attempts(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
    if sql.startswith('INSERT INTO "queues_attempt"'):
        raise OperationalError("the connection is lost")
    return execute(sql, params, many, context)


def test_a_job_whose_call_was_a_failed_probe_leaves_the_next_probe_to_others(desk: Desk) -> None:
    """Else the oldest job would be every probe of an outage, and be given up after five of them."""
    desk.pool(breaker_failures=1, breaker_open_for=0.4)
    desk.queue("q", retry={"strategy": "fixed", "initial": 0.05, "jitter": 0.0})
    (job,) = desk.submit(1, queue="q", type="http.request", payload={"pool": "llm", "path": "/"})
    worker = desk.worker()
    outage = failed("server", upstream=CallOutcome("server"))
    least, most = [], []
    for _ in range(2):
        desk.cycle()
        (claimed,) = worker.claim()
        before = clock.now()
        worker.settle([claimed], outage)
        row = fresh(job)
        assert row.not_before is not None
        least.append((row.not_before - clock.now()).total_seconds())
        most.append((row.not_before - before).total_seconds())
        time.sleep(0.45)  # Redis's clock, by which the breaker half-opens
        desk.skip(0.5)
    assert least[0] < 0.06, "its own retry"
    assert most[1] > 0.35, "the next probe and more"


ODD = ['{a,"b"}', "{}", "NULL", "", "a\\b", "it's, 100%", "%s", "é\n\t€😀", '"', "[]", "null"]
"""Texts that mean something to PostgreSQL's arrays, to JSON or to a driver."""


def test_odd_texts_are_stored_as_they_are(desk: Desk) -> None:
    """Ends and attempts travel in arrays on PostgreSQL, in one JSON document on SQLite."""
    jobs = desk.submit(2 * len(ODD), max_attempts=1)
    worker = desk.worker(places=2 * len(ODD))
    desk.cycle()
    claimed = {item.id: item for item in worker.claim()}
    for job, text in zip(jobs, [*ODD, *ODD], strict=True):
        item = claimed[job.pk]
        is_first = job.pk in {one.pk for one in jobs[: len(ODD)]}
        worker.claimed_jobs = []
        worker.settle([item], RunResult(OK.outcome, result={text: [text]}) if is_first else failed(error=text))
    for job, text in zip(jobs[: len(ODD)], ODD, strict=True):
        assert fresh(job).result == {text: [text]}
    for job, text in zip(jobs[len(ODD) :], ODD, strict=True):
        assert (fresh(job).error, Attempt.objects.get(job=job).error) == (text, text)


def test_odd_texts_of_many_ends_at_once(desk: Desk) -> None:
    jobs = desk.submit(len(ODD), max_attempts=1)
    worker = desk.worker(places=len(ODD))
    desk.cycle()
    results = {job.pk: text for job, text in zip(jobs, ODD, strict=True)}
    ended = [Ended(item, RunResult(OK.outcome, result=results[item.id])) for item in worker.claim()]
    assert settle(ended, worker.name) == len(ODD)
    assert [fresh(job).result for job in jobs] == ODD
