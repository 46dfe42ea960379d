"""What the leader releases, in which order, and what it leaves alone."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import pytest

from queues import settlement, wakeups
from queues.broker import belt
from queues.connection import client
from queues.dispatcher.admission import Admissions
from queues.dispatcher.capacity import Pace
from queues.dispatcher.dispatcher import Dispatcher
from queues.dispatcher.leader import LeadershipLost
from queues.maintenance.reconciler import Reconciler
from queues.maintenance.runner import Maintenance
from queues.models import DeadLetter, Job, Leadership, Queue, Transition
from queues.services import queue_actions
from queues.services.submit import submit_specs
from queues.specs import read_job
from queues.states import Stage, Status
from quotas import clock
from quotas.engine.types import CallOutcome
from quotas.runtime import connection
from quotas.services import accounts
from quotas.snapshot import resolve
from tests.integration.queues.desk import OK, Desk, Worker, failed, fresh

CALL: dict[str, Any] = {"type": "http.request", "payload": {"pool": "llm", "path": "/"}}


def on_belt() -> list[int]:
    return list(Job.objects.filter(stage=Stage.BELT).order_by("pk").values_list("pk", flat=True))


# Order


def test_starts_follow_submits(desk: Desk) -> None:
    jobs = desk.submit(60)
    assert desk.run_until_done(desk.worker(places=7)) == [job.pk for job in jobs]


def test_order_holds_in_a_lane_through_deferral(desk: Desk) -> None:
    desk.policy("slow", "user", 3, algorithm="concurrency", window=None)
    jobs = desk.submit(20, user="u")
    worker = desk.worker(places=50)
    started = desk.run_until_done(worker)
    assert started == [job.pk for job in jobs]
    assert Transition.objects.filter(state=Status.RATE_LIMITED).exists(), "some had to wait"


def test_order_holds_through_a_retry(desk: Desk) -> None:
    desk.queue("q", concurrency=1, retry={"strategy": "fixed", "initial": 2.0, "jitter": 0.0})
    jobs = desk.submit(6, queue="q")
    worker = desk.worker(places=1)
    desk.cycle()
    (first,) = worker.claim()
    worker.settle([first], failed())
    desk.cycle()
    (second,) = worker.claim()
    assert second.id == jobs[1].pk
    desk.skip(3)
    worker.beat()
    worker.settle([second])
    desk.cycle()
    assert [item.id for item in worker.claim()] == [jobs[0].pk], "it is older than the others"


def test_order_holds_when_redis_loses_its_memory(desk: Desk) -> None:
    """What was released and lost goes before what was never released."""
    jobs = desk.submit(30)
    worker = desk.worker(places=5)
    desk.cycle()
    client().flushall()
    started: list[int] = []
    for _ in range(60):
        worker.beat()
        desk.maintenance.make_all_due()
        desk.cycle()
        started += [item.id for item in worker.claim()]
        worker.run()
        desk.skip(1)
        if len(started) == 30:
            break
    assert started == [job.pk for job in jobs]


def test_order_holds_through_a_pause(desk: Desk) -> None:
    queue = desk.queue("q")
    jobs = desk.submit(10, queue="q", user="u")
    worker = desk.worker(places=3)
    started: list[int] = []

    def round_() -> None:
        worker.beat()
        desk.cycle()
        started.extend(item.id for item in worker.claim())
        worker.run()

    round_()
    queue_actions.pause(queue, actor="t", reason="r")
    desk.renew_configuration()
    jobs += desk.submit(10, queue="q", user="u")
    round_()
    assert len(started) <= 6, "what was on the belt starts, and no more"
    queue_actions.resume(queue, actor="t", reason="r")
    desk.renew_configuration()
    jobs += desk.submit(5, queue="q", user="u")
    while len(started) < 25:
        round_()
    assert started == [job.pk for job in jobs]


def test_order_holds_when_redis_is_restarted_with_what_it_had(desk: Desk) -> None:
    """Its belt comes back a little old: parcels that were put there last are gone."""
    jobs = desk.submit(12)
    worker = desk.worker(places=3)
    desk.cycle()
    client().rpop(belt("io").key)
    started: list[int] = []
    while len(started) < 12:
        desk.reconcile_renewing(worker)
        desk.cycle()
        started += [item.id for item in worker.claim()]
        worker.run()
    assert sorted(started) == [job.pk for job in jobs]
    behind = started.index(jobs[-1].pk)
    assert behind == 11, "what was lost is released before what was never released"


def test_high_overtakes_ten_thousand_low(desk: Desk) -> None:
    desk.submit(10_000, priority="low")
    worker = desk.worker(places=4)
    desk.cycle()
    (high,) = desk.submit(priority="high")
    worker.claim()
    worker.run()
    desk.cycle(anew=False)
    assert high.pk in on_belt(), "with the first slot that is free"


def test_low_priority_is_not_starved(desk: Desk) -> None:
    (low,) = desk.submit(priority=9)
    desk.skip(60)
    worker = desk.worker(places=4)
    desk.submit(100, priority=0)
    for _ in range(15):
        worker.beat()
        desk.cycle()
        started = [item.id for item in worker.claim()]
        worker.run()
        if low.pk in started:
            return
    raise AssertionError("it did not start among the first 60")


# One does not delay another


def test_one_blocked_chat_holds_up_no_other(desk: Desk) -> None:
    """A policy on a custom key: the first chat's is used up for a minute, 999 others continue."""
    desk.policy("chat", "custom", 1, algorithm="sliding_window", key_name="chat", window=60.0)
    desk.submit(50, keys={"chat": "busy"})
    others = [{"type": "test.echo", "keys": {"chat": f"c{number}"}} for number in range(999)]
    submit_specs(desk.project(), [read_job(body) for body in others])
    worker = desk.worker(places=1100)
    desk.cycle()
    started = Counter(item.job.keys["chat"] for item in worker.claim())
    assert started["busy"] == 1
    assert len(started) == 1000


def test_many_blocked_chats_hold_up_nobody_behind_them(desk: Desk) -> None:
    """More of them than the dispatcher draws in one round."""
    desk.policy("chat", "custom", 1, key_name="chat")
    for number in range(150):
        desk.submit(2, keys={"chat": f"c{number}"})
    worker = desk.worker(places=500)
    desk.cycle()
    assert len(worker.claim()) == 150
    (free,) = desk.submit(keys={"chat": "another"})
    desk.cycle()
    assert free.pk in on_belt()


def test_a_chat_limited_on_its_account_holds_up_no_other(desk: Desk) -> None:
    """A pool's own limit for each key, such as one message a second into one chat."""
    desk.pool("llm", limits=[{"limit": 1, "window": 3600.0, "per_key": True}])
    desk.submit(5, **CALL, keys={"chat": "busy"})
    for number in range(40):
        desk.submit(**CALL, keys={"chat": f"c{number}"})
    worker = desk.worker(places=100)
    for _ in range(5):
        desk.cycle(anew=False)
    started = Counter(item.job.keys["chat"] for item in worker.claim())
    assert started["busy"] == 1
    assert len(started) == 41


def test_a_refused_model_holds_up_no_other_one(desk: Desk) -> None:
    """A 429 about one of the provider's models: jobs that request another continue, behind it in the same queue."""
    desk.pool("llm")
    bodies = [{"model": name} for name in ("large", "large", "small", "small")]
    jobs = [
        desk.submit(type="http.request", payload={**CALL["payload"], "method": "POST", "json": body})[0]
        for body in bodies
    ]
    assert [job.model for job in jobs] == ["large", "large", "small", "small"]
    worker = desk.worker(places=1)
    desk.cycle()
    (first,) = worker.claim()
    refused = CallOutcome("rate_limited", status=429, scope="model", retry_after=60.0)
    worker.settle(result=failed("rate_limited", counted=False, upstream=refused))
    assert first.id == jobs[0].pk
    for job in jobs[2:]:
        desk.cycle()
        assert [item.id for item in worker.claim()] == [job.pk]
        worker.settle()
    desk.cycle()
    waiting = fresh(jobs[0])
    assert waiting.status == "rate_limited" and "model" in waiting.reason, waiting.reason


def test_a_throttled_project_costs_another_nothing(desk: Desk) -> None:
    a = desk.project("a")
    desk.policy("none-for-a", "project", 0, project=a)
    desk.submit(300, project="a")
    jobs = desk.submit(20, project="b")
    worker = desk.worker(places=20)
    desk.cycle()
    assert [item.id for item in worker.claim()] == [job.pk for job in jobs]


@pytest.mark.parametrize("door", ["service", "rows"])
def test_no_job_of_a_paused_queue_is_left_on_the_belt(desk: Desk, door: str) -> None:
    """OptimalBits/bull#1093: a job that waits for a slot starts although its queue is paused. `rows`: a dispatcher that
    does not know of the pause yet has released it."""
    queue = desk.queue("q")
    jobs, others = desk.submit(6, queue="q"), desk.submit(2)
    worker = desk.worker(places=2)
    desk.cycle()
    waiting = on_belt()
    assert {job.pk for job in jobs} & set(waiting)
    if door == "service":
        queue_actions.pause(queue, actor="t", reason="r")
    else:
        Queue.objects.filter(pk=queue.pk).update(paused_at=clock.now())
        Reconciler().run(clock.now())
    left = set(waiting) - {job.pk for job in jobs}
    assert set(on_belt()) == left <= {job.pk for job in others}
    assert {item.id for item in worker.claim()} == left, "what is on the belt of it is stale"
    assert {(job.stage, job.status) for job in map(fresh, jobs)} == {(Stage.READY, Status.PENDING)}
    worker.settle()
    queue_actions.resume(queue, actor="t", reason="r")
    desk.renew_configuration()
    desk.run_until_done(worker)
    assert {fresh(job).attempts_made for job in jobs} == {1}


def test_a_paused_queue_costs_another_nothing(desk: Desk) -> None:
    queue = desk.queue("q")
    desk.submit(300, queue="q", priority="high")
    queue_actions.pause(queue, actor="t", reason="r")
    desk.renew_configuration()
    jobs = desk.submit(20)
    worker = desk.worker(places=20)
    desk.cycle()
    assert [item.id for item in worker.claim()] == [job.pk for job in jobs]


def test_a_disabled_pool_costs_another_nothing(desk: Desk) -> None:
    from quotas.models import Account

    desk.pool("llm")
    Account.objects.update(enabled=False)
    desk.renew_configuration()
    waiting = desk.submit(100, **CALL)
    jobs = desk.submit(10)
    worker = desk.worker(places=20)
    desk.cycle()
    assert [item.id for item in worker.claim()] == [job.pk for job in jobs]
    assert fresh(waiting[0]).status == Status.RATE_LIMITED
    assert "disabled" in fresh(waiting[0]).reason


def test_weights_are_kept_through_the_whole_path(desk: Desk) -> None:
    desk.project("a", weight=3)
    desk.project("b", weight=1)
    desk.submit(200, project="a")
    desk.submit(200, project="b")
    worker = desk.worker(places=10)
    started: Counter[str] = Counter()
    while started.total() < 160:
        desk.cycle()
        started.update(item.context.project for item in worker.claim())
        worker.settle()
    assert 0.675 <= started["a"] / started.total() <= 0.825


def test_a_small_project_behind_a_large_one_starts_at_once(desk: Desk) -> None:
    desk.submit(2000, project="a")
    worker = desk.worker(places=10)
    desk.cycle()
    worker.claim()
    (job,) = desk.submit(project="b")
    worker.settle()
    desk.cycle(anew=False)
    assert job.pk in on_belt()


def test_an_urgent_job_takes_the_next_free_slot_where_jobs_are_slow(desk: Desk) -> None:
    """mozilla/kitsune#4415: where jobs are fetched ahead, those of low priority start first, and an urgent one waits for all of them."""
    worker = desk.worker(places=2)
    desk.submit(6, priority="low")
    desk.cycle()
    running = worker.claim()
    assert (len(running), on_belt()) == (2, [])
    (urgent,) = desk.submit(1, priority="high")
    desk.cycle()
    worker.settle(running[:1])
    desk.cycle()
    assert [item.id for item in worker.claim()] == [urgent.pk]


def rounds_until_started(desk: Desk, worker: Worker, wanted: list[Job]) -> list[int]:
    """For each of the jobs, in which round it started; all that starts in a round ends in it."""
    left, found = {job.pk for job in wanted}, []
    for number in range(1, 1000):
        worker.beat()
        desk.cycle(anew=False)
        claimed = worker.claim()
        found += [number for item in claimed if item.id in left]
        worker.settle(claimed)
        if len(found) == len(left):
            return sorted(found)
    raise AssertionError(f"{len(found)} of {len(left)} started")


@pytest.mark.parametrize("many", [3000, pytest.param(20_000, marks=pytest.mark.long)])
def test_twenty_jobs_behind_thousands_wait_twice_as_long_at_most(desk: Desk, many: int) -> None:
    """Than on an idle system, that is: half of the slots are theirs from the first round on."""
    desk.pool("llm", concurrency_initial=1000)
    worker = desk.worker(places=10)
    idle = rounds_until_started(desk, worker, desk.submit(20, project="b", **CALL))
    desk.submit(many, project="a", **CALL)
    rounds_until_started(desk, worker, desk.submit(1, project="a", priority="high", **CALL))
    behind = rounds_until_started(desk, worker, desk.submit(20, project="b", **CALL))
    assert behind[18] <= 2 * idle[18], (idle, behind)


def test_a_throttled_or_paused_project_does_not_even_slow_another_down(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = desk.worker(places=10)
    monkeypatch.setattr(Pace, "prefetch", lambda _, slots: dict(slots))  # the pace depends on the machine's load
    idle = rounds_until_started(desk, worker, desk.submit(50, project="b"))
    a = desk.project("a")
    desk.policy("one-for-a", "project", 1, project=a, window=3600.0)
    parked = desk.queue("parked")
    queue_actions.pause(parked, actor="t", reason="r")
    desk.submit(3000, project="a")
    desk.submit(3000, project="a", queue="parked", priority="high")
    desk.renew_configuration()
    desk.cycle()
    worker.settle(worker.claim())
    assert rounds_until_started(desk, worker, desk.submit(50, project="b")) == idle


# How many


def test_no_more_is_released_than_there_are_places_and_a_queue_allows(desk: Desk) -> None:
    desk.pool("llm")
    desk.queue("narrow", concurrency=3)
    desk.submit(30, queue="narrow", **CALL)
    desk.submit(30, **CALL)
    worker = desk.worker(places=10)
    desk.cycle()
    started = Counter(item.context.queue for item in worker.claim())
    assert started == {"narrow": 3, "batch": 7}
    worker.settle(worker.claimed_jobs[:2])
    desk.cycle()
    assert Job.objects.filter(stage__in=[Stage.BELT, Stage.RUNNING]).count() == 10


def test_a_queue_of_concurrency_none_at_all(desk: Desk) -> None:
    desk.queue("off", concurrency=0)
    (job,) = desk.submit(queue="off")
    desk.worker()
    desk.cycle()
    assert fresh(job).stage == Stage.READY


def test_nothing_is_released_to_workers_that_are_gone(desk: Desk) -> None:
    (job,) = desk.submit()
    worker = desk.worker()
    desk.skip(60)
    desk.cycle()
    assert fresh(job).stage == Stage.READY
    worker.beat()
    desk.cycle()
    assert fresh(job).stage == Stage.BELT


def test_a_limit_costs_no_attempt_and_no_release(desk: Desk) -> None:
    desk.policy("two", "project", 2)
    jobs = desk.submit(5)
    worker = desk.worker()
    for _ in range(3):
        desk.cycle()
        worker.claim()
        worker.run()
    rows = [fresh(job) for job in jobs]
    assert [row.status for row in rows[:2]] == [Status.COMPLETED] * 2
    assert [(row.stage, row.delivery, row.attempts_made) for row in rows[2:]] == [(Stage.READY, 0, 0)] * 3
    assert rows[2].status == Status.RATE_LIMITED
    assert rows[2].reason.startswith("policy two, until ")


def test_a_threshold_of_a_policy_holds_low_priorities_back(desk: Desk) -> None:
    desk.policy("ten", "project", 10, pause_at=0.5, pause="low")
    desk.submit(5)
    low = desk.submit(2, priority="low")
    normal = desk.submit(2)
    worker = desk.worker(places=50)
    desk.run_until_done_but(worker, 2)
    assert [fresh(job).stage for job in low] == [Stage.READY] * 2
    assert [fresh(job).status for job in normal] == [Status.COMPLETED] * 2


# What can never be


def test_a_cost_that_no_wait_helps_becomes_a_letter(desk: Desk) -> None:
    desk.policy("tokens", "project", 100, unit="tokens")
    (job,) = desk.submit(cost={"tokens": 101})
    (other,) = desk.submit(cost={"tokens": 100})
    worker = desk.worker()
    desk.cycle()
    row = fresh(job)
    assert (row.status, row.category, row.attempts_made) == (Status.DEAD, "validation", 0)
    assert "tokens" in row.error
    assert DeadLetter.objects.get().job_id == job.pk
    assert [item.id for item in worker.claim()] == [other.pk]


def test_what_waits_for_an_impossible_job_is_cancelled_and_its_batch_ends(desk: Desk) -> None:
    from queues.models import Batch
    from queues.services.batches import submit_bulk
    from queues.specs import read_job

    desk.policy("tokens", "project", 100, unit="tokens")
    batch, ids, _ = submit_bulk(desk.project(), [read_job({"type": "test.echo", "cost": {"tokens": 101}})])
    (waits,) = desk.submit(after=ids)
    desk.worker()
    desk.cycle()
    assert fresh(waits).status == Status.CANCELLED
    assert Batch.objects.get(pk=batch.pk).finished_at is not None


def test_a_pool_that_was_taken_away(desk: Desk) -> None:
    pool = desk.pool("llm")
    desk.pool("other")
    (job,) = desk.submit(**CALL)
    pool.accounts.all().delete()
    pool.delete()
    desk.renew_configuration()
    (fine,) = desk.submit(type="http.request", payload={"pool": "other", "path": "/"})
    desk.worker()
    desk.cycle()
    assert (fresh(job).stage, fresh(fine).stage) == (Stage.READY, Stage.BELT)
    desk.pool("llm")
    desk.cycle()
    assert fresh(job).stage == Stage.BELT, "it is back on the belt"


# Accounts and leases


def test_what_was_reserved_is_given_back_when_a_release_finds_the_job_gone(desk: Desk) -> None:
    desk.pool("llm", concurrency_initial=1)
    first, second = desk.submit(2, **CALL)
    desk.worker()

    class CancelledMeanwhile(Admissions):
        def admit(self, asked: Any) -> Any:
            answers = super().admit(asked)
            Job.objects.filter(pk=first.pk).update(stage=Stage.DONE, status=Status.CANCELLED)
            return answers

    desk.cycle(Dispatcher(CancelledMeanwhile(connection.accounts(), connection.limiter()), Maintenance(), "d1"))
    desk.skip(10)  # the other dispatcher's term ends
    desk.cycle()
    assert on_belt() == [second.pk]


def test_what_was_given_back_is_charged_when_it_is_admitted_after_all(desk: Desk) -> None:
    """Behind a job that has to wait, smaller ones of its lane are admitted and released."""
    policy = desk.policy("tokens", "project", 100, unit="tokens")
    desk.pool(limits=[{"unit": "tokens", "algorithm": "fixed_window", "limit": 1000, "window": 3600.0}])
    jobs = [desk.submit(user="u", cost={"tokens": cost}, **CALL)[0] for cost in (60, 70, 30)]
    worker = desk.worker()
    desk.cycle()
    desk.cycle()
    assert on_belt() == [jobs[0].pk]
    policy.limit = 1000
    policy.save()
    desk.renew_configuration()
    desk.cycle()
    assert on_belt() == [job.pk for job in jobs]
    claimed = worker.claim()
    assert len({item.job.account_lease for item in claimed}) == 3
    (compiled,) = resolve.snapshot().policies.values()
    states = settlement.limiter().peek([compiled.limit_for("acme", "acme", 0, time.time())])
    assert [state.used for state in states] == [160]
    (view,) = accounts.explain("llm", {"tokens": 841}).pools[0].accounts
    assert not view.available, "160 are charged to the account, too"
    assert accounts.explain("llm", {"tokens": 840}).pools[0].accounts[0].available


def test_slots_are_free_again_when_jobs_end(desk: Desk) -> None:
    desk.pool("llm", concurrency_initial=2)
    desk.submit(10, **CALL)
    worker = desk.worker()
    started = 0
    for _ in range(5):
        desk.cycle()
        claimed = worker.claim()
        assert len(claimed) == 2
        started += len(claimed)
        worker.settle(claimed, type(OK)("succeeded", upstream=CallOutcome("ok", status=200)))
    assert started == 10


# Leading


def test_one_leads_and_the_other_stands_by(desk: Desk) -> None:
    other = desk.another_dispatcher("d2")
    assert desk.dispatcher.leader.renew_or_take_over()
    assert not other.leader.renew_or_take_over()
    desk.dispatcher.leader.resign()
    desk.skip(0.01)
    assert other.leader.renew_or_take_over()
    assert not desk.dispatcher.leader.renew_or_take_over()


def test_a_leader_that_is_silent_is_followed_by_another(desk: Desk) -> None:
    other = desk.another_dispatcher("d2")
    assert desk.dispatcher.leader.renew_or_take_over()
    desk.skip(4)
    assert not other.leader.renew_or_take_over()
    desk.skip(2)
    assert other.leader.renew_or_take_over()
    assert Leadership.objects.get().token == 2


def test_a_paused_leader_writes_nothing_when_it_wakes_up(desk: Desk) -> None:
    desk.queue("costly")
    (job,) = desk.submit()
    (timed,) = desk.submit(delay=1)
    desk.policy("tokens", "project", 1, unit="tokens")
    (impossible,) = desk.submit(cost={"tokens": 2})
    desk.worker(places=100)
    assert desk.dispatcher.leader.renew_or_take_over()
    desk.skip(6)
    other = desk.another_dispatcher("d2")
    assert other.leader.renew_or_take_over()
    before = list(Job.objects.order_by("pk").values())
    desk.worker(places=100)
    with pytest.raises(LeadershipLost):
        desk.dispatcher.cycle(wakeups.Wakeups())
    assert list(Job.objects.order_by("pk").values()) == before
    assert client().llen("rq:queue:io") == 0
    assert not DeadLetter.objects.exists()
    desk.cycle(other)
    assert fresh(job).stage == fresh(timed).stage == Stage.BELT
    assert fresh(impossible).status == Status.DEAD


def test_a_leader_whose_term_ended_writes_nothing_though_nobody_followed(desk: Desk) -> None:
    desk.submit()
    desk.worker()
    assert desk.dispatcher.leader.renew_or_take_over()
    desk.skip(6)
    desk.worker()
    with pytest.raises(LeadershipLost):
        desk.dispatcher.cycle(wakeups.Wakeups())
    assert on_belt() == []
    desk.dispatcher.forget()  # as its loop does
    desk.cycle()
    assert len(on_belt()) == 1


def test_two_dispatchers_in_turn_release_each_job_once(desk: Desk) -> None:
    jobs = desk.submit(40)
    worker = desk.worker(places=5)
    pair = [desk.dispatcher, desk.another_dispatcher("d2")]
    for turn in range(20):
        leads = pair[turn % 2]
        worker.beat()
        desk.cycle(leads)
        worker.claim()
        worker.run()
        leads.leader.resign()
        desk.skip(0.01)
    assert {(row.status, row.delivery) for row in map(fresh, jobs)} == {(Status.COMPLETED, 1)}


# Scheduled


def test_a_scheduled_job_starts_at_its_time_and_not_before(desk: Desk) -> None:
    (job,) = desk.submit(delay=60)
    worker = desk.worker()
    desk.cycle()
    assert fresh(job).stage == Stage.SCHEDULED
    desk.skip(59)
    worker.beat()
    assert desk.cycle() <= 1.0, "it wakes up for it"
    assert fresh(job).stage == Stage.SCHEDULED
    desk.skip(1.1)
    desk.cycle()
    assert fresh(job).stage == Stage.BELT
    assert fresh(job).dispatched_at >= fresh(job).not_before
    assert clock.now() >= fresh(job).not_before
