"""Every second that a job waited has a cause, which stays on record after the wait has ended."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.db import DatabaseError, connection

from controlplane.observability import queue_metrics
from queues import wait_metric
from queues.connection import client
from queues.dispatcher import capacity, denials, dispatcher, wait_ledger
from queues.dispatcher import round as round_module
from queues.dispatcher.leader import Leader, LeadershipLost
from queues.dispatcher.wait_ledger import WaitLedger, take_over
from queues.maintenance.pruner import prune
from queues.models import Job, Leadership, Queue, WaitInterval
from queues.reason_codes import REASONS
from queues.selectors import wait_history
from queues.services import queue_actions
from queues.states import GroupKey
from queues.wakeups import Wakeups
from quotas import clock
from tests.integration.queues.desk import OK, Desk, failed, fresh
from tests.integration.queues.test_rest import api

CALL: dict[str, Any] = {"type": "http.request", "payload": {"pool": "llm", "path": "/"}}


def causes(job: Job) -> list[tuple[str, str]]:
    """What the job waited for in order, without what took less than a second: a cycle may take that long here."""
    return [(span.code, span.name) for span in wait_history.spans_of(fresh(job)) if span.is_wait and span.seconds >= 1]


def assert_gapless(job: Job) -> None:
    job = fresh(job)
    spans = wait_history.spans_of(job)
    assert spans[0].began_at == job.created_at
    assert all(left.ended_at == right.began_at for left, right in zip(spans, spans[1:], strict=False))
    if job.finished_at is not None:
        assert spans[-1].ended_at == job.finished_at


def step(desk: Desk, seconds: float, times: int = 1) -> None:
    """Let time pass, with a cycle of the dispatcher after each step."""
    for _ in range(times):
        desk.skip(seconds)
        desk.cycle()


def test_a_policy_that_held_a_job_stays_on_record(desk: Desk) -> None:
    desk.policy("user-slow", "user", 1, algorithm="concurrency", window=None, lease_ttl=600.0)
    first, second = desk.submit(2, user="u")
    worker = desk.worker()
    desk.cycle()
    worker.claim()
    for _ in range(20):
        desk.skip(1.0)
        worker.beat()
        desk.cycle()
    worker.settle()
    desk.run_until_done(worker)
    assert causes(second) == [("policy_limit", "user-slow")]
    (span,) = [span for span in wait_history.spans_of(fresh(second)) if span.code == "policy_limit"]
    assert 19 <= span.seconds <= 22
    assert causes(first) == []
    for job in (first, second):
        assert_gapless(job)


def test_many_jobs_behind_one_pool_cost_a_few_rows(desk: Desk) -> None:
    desk.pool(limits=[{"unit": "requests", "algorithm": "token_bucket", "limit": 60, "window": 60.0, "burst": 1}])
    jobs = desk.submit(300, **CALL)
    worker = desk.worker(places=20)
    for _ in range(40):
        worker.beat()
        desk.cycle()
        worker.claim()
        worker.settle()
        desk.skip(0.5)
    assert Job.objects.filter(finished_at__isnull=False).count() < 300
    assert WaitInterval.objects.count() <= 5
    assert causes(jobs[-1])[0][0] == "account_limit"


def test_a_paused_queue_no_worker_and_queue_concurrency(desk: Desk) -> None:
    queue = desk.queue("q", concurrency=1)
    queue_actions.pause(queue, actor="tests", reason="to see it")
    desk.renew_configuration()
    first, second = desk.submit(2, queue="q")
    desk.cycle()
    step(desk, 1.0, 5)
    queue_actions.resume(queue, actor="tests", reason="seen")
    desk.renew_configuration()
    step(desk, 1.0, 5)
    worker = desk.worker()
    desk.cycle()
    worker.claim()
    for _ in range(5):
        desk.skip(1.0)
        worker.beat()
        desk.cycle()
    worker.settle()
    desk.run_until_done(worker)
    assert causes(first) == [("queue_paused", "q"), ("no_worker", "io")]
    assert causes(second) == [("queue_paused", "q"), ("no_worker", "io"), ("queue_concurrency", "q")]
    for job in (first, second):
        assert_gapless(job)


def test_dependencies_run_at_and_retries_are_waits_too(desk: Desk) -> None:
    desk.queue("q", retry={"strategy": "fixed", "initial": 4.0, "jitter": 0.0})
    (first,) = desk.submit(1, queue="q")
    (after,) = desk.submit(1, queue="q", after=[first.uid])
    (timed,) = desk.submit(1, queue="q", run_at=(clock.now() + timedelta(seconds=6)).isoformat())
    worker = desk.worker()
    desk.cycle()
    worker.settle(worker.claim(), failed())
    step(desk, 1.0, 5)
    desk.skip(2.0)
    worker.beat()
    desk.run_until_done(worker)
    assert causes(first)[0] == ("retry_backoff", "")
    assert causes(after)[0] == ("dependency", "")
    assert causes(timed)[0] == ("scheduled", "")
    for job in (first, after, timed):
        assert_gapless(job)


def test_time_without_a_dispatcher_has_its_own_cause(desk: Desk) -> None:
    worker = desk.worker()
    desk.cycle()
    (job,) = desk.submit(1)
    desk.skip(30.0)
    worker.beat()
    other = desk.another_dispatcher("d2")
    desk.cycle(other)
    worker.run(worker.claim())
    (span,) = [span for span in wait_history.spans_of(fresh(job)) if span.code == "no_dispatcher"]
    assert 29 <= span.seconds <= 31
    assert_gapless(job)


def test_a_new_leader_ends_what_the_dead_one_left_open(desk: Desk) -> None:
    desk.queue("q", concurrency=0)
    desk.submit(1, queue="q")
    step(desk, 1.0, 4)
    (row,) = WaitInterval.objects.all()
    assert row.ended_at is None and row.code == "queue_concurrency"
    last_renewal = Leadership.objects.get().until - timedelta(seconds=5)
    desk.skip(20.0)
    desk.cycle(desk.another_dispatcher("d2"))
    row.refresh_from_db()
    assert row.ended_at == last_renewal
    assert WaitInterval.objects.filter(code="no_dispatcher", queue=None).count() == 1


def test_waits_are_summed_up_for_the_metric(desk: Desk) -> None:
    queue = desk.queue("q", concurrency=0)
    before = wait_metric.totals().get((queue.pk, "queue_concurrency"), 0.0)
    desk.submit(1, queue="q")
    desk.cycle()
    step(desk, 2.0, 5)
    assert 9 <= wait_metric.totals()[queue.pk, "queue_concurrency"] - before <= 12


@pytest.mark.django_db
def test_short_gaps_of_one_cause_are_joined_and_others_end_an_interval() -> None:
    ledger, group, now = WaitLedger(Leader("d1")), GroupKey(0, 5, 0, ""), clock.now()

    def at(seconds: float):  # type: ignore[no-untyped-def]
        return now + timedelta(seconds=seconds)

    ledger.hold(group, "", ("policy_limit", "a"), at(0), at(3))
    ledger.release(group, "u", at(1))
    ledger.hold(group, "", ("policy_limit", "a"), at(1.5), at(2))
    ledger.hold(group, "", ("policy_limit", "b"), at(1.8), at(4))
    assert [(hold.cause[1], hold.began, hold.until) for _, hold in ledger._over] == [("a", at(0), at(1.8))]
    ledger.discard()


@pytest.mark.django_db
def test_taking_over_at_once_writes_no_gap() -> None:
    now, leader = clock.now(), Leader("d1")
    assert leader.renew_or_take_over()
    take_over(leader, now - timedelta(milliseconds=10), now)
    assert not WaitInterval.objects.exists()


@contextmanager
def refused_writes(operation: str) -> Iterator[None]:
    """SQL refuses to `INSERT` or to `UPDATE` intervals meanwhile."""
    table = WaitInterval._meta.db_table
    begin = [f"CREATE TRIGGER refused BEFORE {operation} ON {table} BEGIN SELECT RAISE(ABORT, 'refused'); END"]
    end = ["DROP TRIGGER refused"]
    if connection.vendor == "postgresql":
        begin = [
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'refused'; END $$",
            f"CREATE TRIGGER refused BEFORE {operation} ON {table} EXECUTE FUNCTION refuse()",
        ]
        end = [f"DROP TRIGGER refused ON {table}", "DROP FUNCTION refuse"]
    with connection.cursor() as cursor:
        for statement in begin:
            cursor.execute(statement)
        try:
            yield
        finally:
            for statement in end:
                cursor.execute(statement)


@pytest.mark.parametrize("operation", ["INSERT", "UPDATE"])
def test_what_sql_refused_is_written_whole_with_the_next_write(desk: Desk, operation: str) -> None:
    busy = desk.queue("busy", concurrency=0)
    paused = desk.queue("paused", concurrency=0)
    (first,) = desk.submit(1, queue="busy")
    step(desk, 1.0, 4)  # its interval is open in SQL
    (second,) = desk.submit(1, queue="paused")
    desk.cycle()
    refused = 0
    with refused_writes(operation):
        for turn in range(4):
            desk.skip(3.0)
            try:
                desk.cycle()
            except DatabaseError:
                refused += 1
            if turn == 1:
                Queue.objects.update(concurrency=None)
                desk.renew_configuration()
    assert refused >= 2
    worker = desk.worker()
    step(desk, 3.0, 2)
    worker.beat()
    desk.run_until_done(worker)
    assert not WaitInterval.objects.filter(ended_at=None).exists()
    assert {row.queue_id for row in WaitInterval.objects.filter(code="queue_concurrency")} == {busy.pk, paused.pk}
    for job in (first, second):
        assert_gapless(job)


def test_a_dispatcher_that_leads_no_longer_writes_nothing(desk: Desk) -> None:
    desk.queue("q", concurrency=0)
    desk.submit(1, queue="q")
    desk.cycle()
    other = Leader("d2")
    desk.skip(10.0)
    assert other.renew_or_take_over()
    with pytest.raises(LeadershipLost):
        desk.dispatcher.cycle(Wakeups())
    assert not WaitInterval.objects.exists()


def test_a_term_that_ended_without_another_leader_leaves_nothing_open(desk: Desk) -> None:
    desk.queue("q", concurrency=0)
    desk.submit(1, queue="q")
    step(desk, 1.0, 4)
    assert WaitInterval.objects.filter(ended_at=None).count() == 1
    desk.submit(1, queue="q", priority="high")
    desk.skip(10.0)
    desk.dispatcher.refresh_soon()
    with pytest.raises(LeadershipLost):
        desk.dispatcher.cycle(Wakeups())
    step(desk, 1.0, 4)
    ended, gap, *open_rows = WaitInterval.objects.order_by("began_at")
    assert ended.ended_at is not None and gap.code == "no_dispatcher" and gap.queue_id is None
    assert [row.ended_at for row in open_rows] == [None, None]


def test_a_failure_before_another_leader_is_no_gap_of_the_next_term(desk: Desk) -> None:
    """What was unavailable in one term has nothing to do with the time in which another dispatcher led."""
    desk.cycle()
    dispatcher = desk.dispatcher
    dispatcher._interrupted = ("limiter_unavailable", "")
    desk.skip(10.0)
    other = desk.another_dispatcher("d2")
    desk.cycle(other)
    desk.skip(60.0)
    other.leader.resign()
    desk.cycle()
    assert not WaitInterval.objects.filter(code="limiter_unavailable").exists()


def test_a_queue_that_was_deleted_does_not_stop_the_ledger(desk: Desk) -> None:
    gone, stays = desk.queue("gone", concurrency=0), desk.queue("stays", concurrency=0)
    jobs = desk.submit(1, queue="gone") + desk.submit(1, queue="stays")
    desk.cycle()
    Job.objects.filter(pk=jobs[0].pk).delete()
    gone.delete()
    desk.renew_configuration()
    step(desk, 1.0, 5)
    connection.check_constraints()
    assert WaitInterval.objects.filter(queue=stays, ended_at=None).exists()


def test_rest_says_what_a_job_and_its_batch_waited_for(desk: Desk) -> None:
    desk.queue("q", concurrency=0)
    client = api("submit", "read")
    desk.project("acme")
    body = {"batch": {"name": "b"}, "jobs": [{"type": "test.echo", "project": "acme", "queue": "q"}] * 3}
    made = client.post("jobs/bulk", body).json()
    desk.cycle()
    step(desk, 1.0, 10)
    explained = client.get(f"jobs/{made['ids'][0]}/explain").json()
    assert explained["reason"] == "queue_concurrency"
    (wait,) = [wait for wait in explained["waits"] if wait["reason"] == "queue_concurrency"]
    assert wait["name"] == "q" and 9 <= wait["seconds"] <= 12
    listed = client.get(f"jobs/{made['ids'][0]}/timeline").json()["waits"]
    assert [wait["reason"] for wait in listed] == [wait["reason"] for wait in explained["waits"]]
    waits = client.get(f"batches/{made['batch']['id']}").json()["waits"]
    assert 9 <= waits["queue_concurrency"] <= 12


def test_metrics_export_the_seconds_of_waiting(desk: Desk) -> None:
    desk.queue("q", concurrency=0)
    desk.submit(1, queue="q")
    desk.cycle()
    step(desk, 1.0, 3)
    (family,) = [family for family in queue_metrics.collect() if family.name == "sluice_wait_seconds"]
    (sample,) = [sample for sample in family.samples if sample.labels == {"queue": "q", "reason": "queue_concurrency"}]
    assert sample.name == "sluice_wait_seconds_total" and sample.value >= 2


def test_intervals_are_kept_as_long_as_jobs_that_waited_in_them(desk: Desk) -> None:
    worker = desk.worker()
    WaitInterval.objects.create(code="no_dispatcher", began_at=clock.now(), ended_at=clock.now())
    desk.skip(10.0)
    (job,) = desk.submit(1)
    WaitInterval.objects.create(code="limiter_unavailable", began_at=clock.now(), ended_at=clock.now())
    desk.run_until_done(worker)
    prune(clock.now())
    assert [row.code for row in WaitInterval.objects.filter(queue=None)] == ["limiter_unavailable"]
    assert fresh(job)


def test_every_cause_that_is_written_is_a_reason_code() -> None:
    source = "".join(
        inspect.getsource(module) for module in (denials, capacity, dispatcher, round_module, wait_ledger, wait_history)
    )
    written = set(re.findall(r'"([a-z]+_[a-z]+)", (?:""|name|queue|lane|candidate)', source)) | set(
        denials._CODES.values()
    )
    assert {"queue_concurrency", "no_pool", "no_dispatcher", "policy_limit"} <= written
    assert written - {"began_at"} <= set(REASONS)


def test_waits_and_runs_of_mixed_jobs_add_up_to_their_lives(desk: Desk) -> None:
    """Through a policy, a pool, a pause, retries, dependencies, an empty Redis and another leader."""
    desk.policy("chat", "user", 2, algorithm="sliding_window", window=10.0)
    desk.pool(limits=[{"unit": "requests", "algorithm": "token_bucket", "limit": 60, "window": 60.0, "burst": 5}])
    paused = desk.queue("paused")
    desk.queue("flaky", retry={"strategy": "fixed", "initial": 3.0, "jitter": 0.0, "max_attempts": 4})
    queue_actions.pause(paused, actor="tests", reason="for a while")
    desk.renew_configuration()
    jobs = desk.submit(40, user="u") + desk.submit(30, **CALL) + desk.submit(20, queue="paused")
    flaky = desk.submit(20, queue="flaky")
    jobs += flaky + desk.submit(20, after=[flaky[0].uid])
    troubled = {job.pk for job in flaky}
    worker = desk.worker(places=8)
    leader = desk.dispatcher
    for second in range(90):
        worker.beat()
        desk.cycle(leader)
        for claimed in worker.claim():
            again = claimed.id in troubled and claimed.job.attempts_made == 1
            worker.settle([claimed], failed() if again else OK)
        desk.skip(0.5)
        if second == 20:
            desk.renew_configuration()
            client().flushall()
        if second == 30:
            queue_actions.resume(paused, actor="tests", reason="done")
            desk.renew_configuration()
        if second == 40:
            desk.skip(8.0)
            leader = desk.another_dispatcher("d2")
    for job in jobs:
        assert_gapless(job)
        row, now = fresh(job), clock.now()
        spans = wait_history.spans_of(row, now)
        life = ((row.finished_at or now) - row.created_at).total_seconds()
        assert abs(sum(span.seconds for span in spans) - life) < 0.05
    seen = {
        span.code
        for job in jobs
        for span in wait_history.waits_in(wait_history.spans_of(fresh(job)))
        if span.seconds >= 1
    }
    assert {"policy_limit", "account_limit", "queue_paused", "retry_backoff", "dependency", "no_dispatcher"} <= seen
