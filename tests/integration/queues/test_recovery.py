"""What was lost is found: belts, workers, poison; and what is cancelled."""

from __future__ import annotations

import time
from typing import Any

import pytest

from queues.broker import belt
from queues.connection import client
from queues.errors import AlreadyFinished
from queues.lifecycle.fate import MAX_LOST
from queues.maintenance.parcel_cleaner import sweep
from queues.maintenance.pruner import prune
from queues.models import Attempt, Callback, DeadLetter, Job, Transition, WorkerProcess
from queues.selectors.timeline import timeline
from queues.services import cancel, dead_letters
from queues.states import AttemptOutcome, Stage, Status
from queues.worker import claims
from queues.worker.requeue import requeue_unfinished
from queues.worker.running import Running, perform
from quotas import clock
from tests.integration.queues.desk import OK, Desk, Worker, failed, fresh


def died(item: Any) -> Any:
    return type(OK)(AttemptOutcome.LOST, category="poison", error="Its process died (signal 11).", counted=False)


def test_a_belt_that_lost_everything_is_filled_again(desk: Desk) -> None:
    jobs = desk.submit(5)
    worker = desk.worker()
    desk.cycle()
    client().flushall()
    assert worker.take() == []
    desk.reconcile()
    assert {fresh(job).stage for job in jobs} == {Stage.READY}
    worker.report.begin()
    assert desk.run_until_done(worker) == [job.pk for job in jobs], "in the order of their submission"
    assert {fresh(job).attempts_made for job in jobs} == {1}


def test_a_parcel_that_a_worker_took_and_never_claimed_is_found(desk: Desk) -> None:
    (job,) = desk.submit()
    worker = desk.worker()
    desk.cycle()
    assert worker.take()  # and dies before it claims
    desk.reconcile()
    assert fresh(job).stage == Stage.READY
    assert fresh(job).reason == "released again: the belt had lost it"


def test_what_is_on_the_belt_is_left_there(desk: Desk) -> None:
    (job,) = desk.submit()
    desk.worker()
    desk.cycle()
    desk.skip(3600)
    desk.reconcile()
    assert (fresh(job).stage, fresh(job).delivery) == (Stage.BELT, 1)


def test_a_worker_that_goes_on_renewing_keeps_its_jobs(desk: Desk) -> None:
    (job,) = desk.submit()
    worker = desk.worker()
    desk.cycle()
    worker.claim()
    from queues.maintenance.reconciler import Reconciler

    reconciler = Reconciler()
    for _ in range(20):
        desk.skip(5)
        worker.beat()
        reconciler.run(clock.now())
    assert (fresh(job).stage, fresh(job).delivery) == (Stage.RUNNING, 1)


def test_a_lost_worker_s_job_goes_to_a_process_of_its_own(desk: Desk) -> None:
    (job,) = desk.submit()
    worker = desk.worker("w1")
    desk.cycle()
    worker.claim()
    desk.skip(30)
    desk.reconcile()
    row = fresh(job)
    assert (row.stage, row.suspect, row.losses, row.attempts_counted) == (Stage.READY, True, 1, 0)
    io, cpu = desk.worker("w2"), desk.worker("w3", "cpu", places=1)
    desk.cycle()
    assert io.take() == []
    cpu.claim()
    cpu.run()
    assert (fresh(job).status, fresh(job).suspect) == (Status.COMPLETED, False)


def test_a_trusted_type_is_suspected_only_when_it_was_lost_twice(desk: Desk) -> None:
    desk.pool("llm")
    (job,) = desk.submit(type="http.request", payload={"pool": "llm", "path": "/"})
    for losses in (1, 2):
        worker = desk.worker(f"w{losses}")
        desk.cycle()
        assert worker.claim()
        desk.skip(30)
        desk.reconcile()
        assert (fresh(job).losses, fresh(job).suspect) == (losses, losses == 2)


@pytest.mark.parametrize("payload", [None, {"pool": "llm", "path": "/"}], ids=["task", "http.request"])
def test_a_job_that_is_lost_without_end_is_given_up(desk: Desk, payload: Any) -> None:
    """Each time the whole worker is gone, so that no death is the job's own; the attempts would last for ever."""
    desk.pool("llm")
    kind = {"type": "http.request", "payload": payload} if payload else {}
    (job,) = desk.submit(max_attempts=1000, **kind)
    for losses in range(1, MAX_LOST + 1):
        assert fresh(job).stage == Stage.READY
        worker = desk.worker(f"w{losses}", "cpu" if fresh(job).suspect else "io", places=1)
        desk.cycle()
        assert worker.claim()
        desk.skip(30)
        desk.reconcile()
        assert fresh(job).losses == losses
    row = fresh(job)
    assert (row.status, row.category, row.attempts_counted) == (Status.DEAD, "poison", 0)
    letter = DeadLetter.objects.get(job=job)
    assert letter.category == "poison" and "lost 20 times" in row.error
    dead_letters.replay(letter.pk, actor="test", reason="test")
    assert (fresh(job).losses, fresh(job).stage) == (0, Stage.READY)


def test_no_claim_is_given_up_right_after_sql_was_away(desk: Desk) -> None:
    """Nobody could renew meanwhile: everyone gets a whole lease again."""
    from queues.maintenance.reconciler import Reconciler

    (job,) = desk.submit()
    worker = desk.worker()
    desk.cycle()
    worker.claim()
    reconciler = Reconciler()
    reconciler.run(clock.now())
    desk.skip(40)  # neither the reconciler nor the worker got through
    reconciler.run(clock.now())
    assert fresh(job).stage == Stage.RUNNING
    worker.beat()
    for _ in range(10):
        desk.skip(4)
        worker.beat()
        reconciler.run(clock.now())
    assert fresh(job).stage == Stage.RUNNING


def test_at_most_once_is_not_delivered_again(desk: Desk) -> None:
    (asked,) = desk.submit(delivery="at_most_once")
    (by_type,) = desk.submit(type="test.once")
    worker = desk.worker()
    desk.cycle()
    assert len(worker.claim()) == 2
    desk.skip(30)
    desk.reconcile()
    for job in (asked, by_type):
        row = fresh(job)
        assert (row.status, row.category) == (Status.DEAD, "lost")
        letter = DeadLetter.objects.get(job=job)
        assert (letter.category, letter.severity) == ("lost", "warning"), "the job is not to blame"
        assert letter.error == "Its worker was lost, and it is delivered at most once."
        assert [step.state for step in timeline(row)].count("dead") == 1


def test_at_most_once_may_be_released_again_when_it_was_never_started(desk: Desk) -> None:
    (job,) = desk.submit(delivery="at_most_once")
    worker = desk.worker()
    desk.cycle()
    client().flushall()
    desk.reconcile()
    worker.report.begin()
    desk.run_until_done(worker)
    assert fresh(job).status == Status.COMPLETED


def test_poison_is_given_up_after_three_deliveries(desk: Desk) -> None:
    """One that took a whole worker down, then twice its own process."""
    (job,) = desk.submit()
    io = desk.worker("w1")
    desk.cycle()
    io.claim()
    desk.skip(30)
    desk.reconcile()
    cpu = desk.worker("w2", "cpu", places=1)
    for deaths in (1, 2):
        desk.cycle()
        (claimed,) = cpu.claim()
        cpu.settle([claimed], died(claimed))
        assert fresh(job).deaths == deaths
    row = fresh(job)
    assert (row.status, row.category, row.delivery, row.attempts_counted) == (Status.DEAD, "poison", 3, 0)
    assert list(Attempt.objects.filter(job=job).values_list("outcome", flat=True)) == ["lost", "lost", "lost"]
    assert DeadLetter.objects.get().category == "poison"


def test_healthy_neighbours_of_poison_are_charged_nothing(desk: Desk) -> None:
    jobs = desk.submit(10)
    io = desk.worker("w1", places=20)
    desk.cycle()
    assert len(io.claim()) == 10
    desk.skip(30)
    desk.reconcile()
    WorkerProcess.objects.filter(name="w1").delete()
    cpu = desk.worker("w2", "cpu", places=3)
    desk.run_until_done(cpu)
    assert {(row.status, row.attempts_counted) for row in map(fresh, jobs)} == {(Status.COMPLETED, 0)}


def test_a_worker_renews_only_what_is_in_its_hands(desk: Desk) -> None:
    """The answer to a claim's commit was lost: SQL says that the worker has it, and the worker knows nothing of it."""
    ours, unknown = desk.submit(2)
    worker = desk.worker()
    desk.cycle()
    claimed = worker.claim()
    worker.claimed_jobs = [item for item in claimed if item.id == ours.pk]
    for _ in range(8):
        desk.skip(4)
        worker.beat()
    desk.reconcile_renewing(worker)
    assert fresh(ours).stage == Stage.RUNNING
    assert fresh(unknown).stage == Stage.READY


# A worker that stops


def test_what_is_handed_back_runs_again_and_is_charged_nothing(desk: Desk) -> None:
    (job,) = desk.submit(max_attempts=1)
    worker = desk.worker("w1")
    desk.cycle()
    claimed = worker.claim()
    assert requeue_unfinished(claimed, "w1") == 1
    row = fresh(job)
    assert (row.stage, row.status, row.worker, row.attempts_counted) == (Stage.READY, Status.PENDING, "", 0)
    assert worker.settle(claimed) == 0, "the delivery is over"
    worker.claimed_jobs.clear()
    desk.run_until_done(desk.worker("w2"))
    assert list(Attempt.objects.filter(job=job).values_list("number", "outcome", "counted")) == [
        (1, "lost", False),
        (2, "succeeded", True),
    ]
    assert Transition.objects.filter(job=job, reason="its worker stopped").exists()


def test_at_most_once_is_not_handed_back(desk: Desk) -> None:
    (job,) = desk.submit(delivery="at_most_once")
    worker = desk.worker("w1")
    desk.cycle()
    assert requeue_unfinished(worker.claim(), "w1") == 0
    desk.skip(30)
    desk.reconcile()
    assert fresh(job).status == Status.DEAD


def test_what_is_to_be_cancelled_is_not_handed_back(desk: Desk) -> None:
    (job,) = desk.submit()
    worker = desk.worker("w1")
    desk.cycle()
    claimed = worker.claim()
    cancel.cancel(job.pk, actor="t")
    assert requeue_unfinished(claimed, "w1") == 0
    desk.skip(30)
    desk.reconcile()
    assert fresh(job).status == Status.CANCELLED


def test_handing_back_what_another_one_owns_changes_nothing(desk: Desk) -> None:
    desk.submit()
    worker = desk.worker("w1")
    desk.cycle()
    claimed = worker.claim()
    before = Job.objects.values().get()
    assert requeue_unfinished(claimed, "w2") == 0
    assert Job.objects.values().get() == before


def test_slots_and_reservations_are_free_again_after_a_return(desk: Desk) -> None:
    desk.pool("llm", concurrency_initial=1)
    desk.policy("inflight", "project", 1, algorithm="concurrency", window=None)
    desk.submit(type="http.request", payload={"pool": "llm", "path": "/"})
    worker = desk.worker("w1")
    desk.cycle()
    requeue_unfinished(worker.claim(), "w1")
    worker.claimed_jobs.clear()
    desk.cycle()
    assert len(worker.claim()) == 1


# Threads


@pytest.mark.parametrize("what", [SystemExit(1), KeyboardInterrupt(), GeneratorExit(), BaseException("x")])
def test_a_task_may_raise_what_it_likes(desk: Desk, type_of: Any, what: BaseException) -> None:
    @type_of("test.raises")
    def raises(job: Any) -> None:
        raise what

    (job,) = desk.submit(type="test.raises")
    worker = desk.worker()
    desk.cycle()
    (claimed,) = worker.claim()
    worker.settle([claimed], Running(claimed).run())
    assert (fresh(job).status, fresh(job).category) == (Status.DEAD, "code")
    assert type(what).__name__ in fresh(job).error


def test_a_type_that_a_worker_does_not_know_goes_to_another_one(desk: Desk, type_of: Any) -> None:
    from queues import registry

    @type_of("test.known")
    def known(job: Any) -> None: ...

    desk.policy("inflight", "project", 10, algorithm="concurrency", window=None)
    (job,) = desk.submit(type="test.known", max_attempts=1)
    known_type = registry.unregister("test.known")
    old = desk.worker("old")
    desk.cycle()
    old.claim()
    old.run()
    row = fresh(job)
    assert (row.stage, row.status, row.attempts_counted, row.suspect) == (Stage.SCHEDULED, Status.PENDING, 0, False)
    assert row.reason == "No job type 'test.known' is known to the worker old. It is tried again in 1 s."
    registry.register(known_type)
    desk.skip(2)
    desk.run_until_done(desk.worker("new"))
    assert fresh(job).status == Status.COMPLETED
    assert list(Attempt.objects.values_list("outcome", "counted")) == [("lost", False), ("succeeded", True)]


def test_a_type_that_no_worker_knows_is_given_up(desk: Desk, type_of: Any) -> None:
    from queues import registry
    from queues.lifecycle.fate import MAX_RETURNS

    @type_of("test.known")
    def known(job: Any) -> None: ...

    (job,) = desk.submit(type="test.known")
    registry.unregister("test.known")
    worker = desk.worker()
    for _ in range(MAX_RETURNS):
        desk.cycle()
        worker.claim()
        worker.run()
        desk.skip(61)
        worker.beat()
    row = fresh(job)
    assert (row.status, row.category, row.attempts_counted, row.deaths) == (Status.DEAD, "code", 0, 0)
    assert row.reason.endswith(f"So it was {MAX_RETURNS} times.")
    registry.register(known)
    dead_letters.retry(row, actor="t")
    desk.run_until_done(worker)
    assert fresh(job).status == Status.COMPLETED


def test_an_account_that_goes_between_admission_and_start(desk: Desk) -> None:
    from quotas.models import Account

    desk.pool("llm", accounts=1)
    (job,) = desk.submit(type="http.request", payload={"pool": "llm", "path": "/"})
    worker = desk.worker()
    desk.cycle()
    Account.objects.all().delete()
    desk.renew_configuration()
    Job.objects.filter(pk=job.pk).exclude(account_id=None).update(account_id=None)
    worker.claim()
    worker.run()
    assert (fresh(job).stage, fresh(job).status, fresh(job).attempts_counted) == (Stage.READY, Status.RATE_LIMITED, 0)


def test_a_claim_of_a_queue_and_project_newer_than_the_worker_s_snapshot(desk: Desk) -> None:
    from queues import config

    desk.queue("new")
    (job,) = desk.submit(project="newcomer", queue="new")
    worker = desk.worker()
    desk.cycle()
    known = config.snapshot._value
    assert known is not None
    config.snapshot._value = type(known)({}, {}, {})
    config.snapshot._freshness._looked = time.monotonic()
    config.snapshot.version = -2
    (claimed,) = worker.claim()
    assert (claimed.context.project, claimed.context.queue) == ("newcomer", "new")
    assert fresh(job).stage == Stage.RUNNING


# Cancel, in every state


def ready(desk: Desk, worker: Worker) -> Job:
    return desk.submit()[0]


def scheduled(desk: Desk, worker: Worker) -> Job:
    return desk.submit(delay=60)[0]


def held(desk: Desk, worker: Worker) -> Job:
    return desk.submit(after=[desk.submit(delay=3600)[0].uid])[0]


def released(desk: Desk, worker: Worker) -> Job:
    (job,) = desk.submit()
    desk.cycle()
    return job


def retrying(desk: Desk, worker: Worker) -> Job:
    desk.queue("retries", retry={"strategy": "fixed", "initial": 60.0})
    (job,) = desk.submit(queue="retries")
    desk.cycle()
    worker.settle(worker.claim(), failed())
    return job


def limited(desk: Desk, worker: Worker) -> Job:
    desk.policy("none", "project", 0)
    (job,) = desk.submit()
    desk.cycle()
    desk.policy("unused", "user", 1)
    return job


@pytest.mark.parametrize("state", [ready, scheduled, held, released, retrying])
def test_what_waits_is_cancelled_at_once(desk: Desk, state: Any) -> None:
    worker = desk.worker()
    job = state(desk, worker)
    cancel.cancel(job.pk, actor="somebody", reason="no longer needed")
    row = fresh(job)
    assert (row.status, row.stage) == (Status.CANCELLED, Stage.DONE)
    assert row.reason == "cancelled by somebody: no longer needed"
    assert row.finished_at is not None
    desk.cycle()
    assert job.pk not in [item.id for item in worker.claim()], "what is on the belt is passed over"
    with pytest.raises(AlreadyFinished):
        cancel.cancel(job.pk, actor="somebody")


def test_what_runs_is_cancelled_by_its_worker(desk: Desk) -> None:
    (job,) = desk.submit()
    worker = desk.worker()
    desk.cycle()
    (claimed,) = worker.claim()
    cancel.cancel(job.pk, actor="somebody")
    assert fresh(job).status == Status.EXECUTING
    assert claims.cancel_requests("w1") == [(job.pk, claimed.delivery)]
    cancel.cancel(job.pk, actor="another")
    assert Transition.objects.filter(job=job).count() == 1
    worker.settle([claimed], type(OK)(AttemptOutcome.CANCELLED, counted=False))
    assert (fresh(job).status, fresh(job).attempts_counted) == (Status.CANCELLED, 0)


def test_a_cancelled_job_that_fails_is_not_tried_again(desk: Desk) -> None:
    (job,) = desk.submit()
    worker = desk.worker()
    desk.cycle()
    (claimed,) = worker.claim()
    cancel.cancel(job.pk, actor="somebody")
    worker.settle([claimed], failed())
    assert fresh(job).status == Status.CANCELLED


def test_a_cancelled_job_whose_worker_dies_is_cancelled(desk: Desk) -> None:
    (job,) = desk.submit()
    worker = desk.worker()
    desk.cycle()
    worker.claim()
    cancel.cancel(job.pk, actor="somebody")
    desk.skip(30)
    desk.reconcile()
    assert fresh(job).status == Status.CANCELLED


@pytest.mark.parametrize("result", [OK, failed("code")])
def test_what_has_ended_cannot_be_cancelled(desk: Desk, result: Any) -> None:
    (job,) = desk.submit()
    worker = desk.worker()
    desk.cycle()
    worker.settle(worker.claim(), result)
    before = Job.objects.values().get()
    with pytest.raises(AlreadyFinished):
        cancel.cancel(job.pk, actor="somebody")
    assert Job.objects.values().get() == before


def test_a_cancelled_release_gives_its_slot_back(desk: Desk) -> None:
    desk.pool("llm", concurrency_initial=1)
    first, second = desk.submit(2, type="http.request", payload={"pool": "llm", "path": "/"})
    worker = desk.worker()
    desk.cycle()
    assert (fresh(first).stage, fresh(second).stage) == (Stage.BELT, Stage.READY)
    cancel.cancel(first.pk, actor="somebody")
    desk.cycle()
    assert [item.id for item in worker.claim()] == [second.pk]


# Retention


def test_what_is_old_goes_and_what_is_dead_stays_until_it_is_handled(desk: Desk, settings: Any) -> None:
    settings.RETENTION_DAYS = 7
    desk.project()
    done, dead, cancelled = desk.submit(3, max_attempts=1, callback_url="http://127.0.0.1:9/")
    worker = desk.worker()
    desk.cycle()
    one, two, three = worker.claim()
    worker.settle([one])
    worker.settle([two], failed("code"))
    worker.settle([three], type(OK)(AttemptOutcome.CANCELLED, counted=False))
    (waits,) = desk.submit(delay=86400 * 30)
    assert Callback.objects.count() == 3
    prune(clock.now())
    assert Job.objects.count() == 4
    desk.skip(86400 * 8)
    prune(clock.now())
    assert set(Job.objects.values_list("pk", flat=True)) == {dead.pk, waits.pk}
    assert not Attempt.objects.exclude(job=dead).exists()
    dead_letters.discard(DeadLetter.objects.get().pk, actor="t")
    prune(clock.now())
    assert set(Job.objects.values_list("pk", flat=True)) == {waits.pk}
    assert not DeadLetter.objects.exists()
    assert done.pk and cancelled.pk


def test_what_others_wait_for_stays(desk: Desk, settings: Any) -> None:
    settings.RETENTION_DAYS = 7
    done, late = desk.submit(1)[0], desk.submit(delay=86400 * 30)[0]
    (waits,) = desk.submit(after=[done.uid, late.uid])
    worker = desk.worker()
    desk.cycle()
    worker.settle(worker.claim())
    desk.skip(86400 * 8)
    prune(clock.now())
    assert Job.objects.filter(pk=done.pk).exists()
    assert fresh(waits).stage == Stage.HELD


def test_no_more_are_kept_than_asked_for(desk: Desk, settings: Any) -> None:
    settings.RETENTION_COUNT = 3
    jobs = desk.submit(8)
    desk.run_until_done(desk.worker())
    prune(clock.now())
    assert list(Job.objects.order_by("pk").values_list("pk", flat=True)) == [job.pk for job in jobs[-3:]]


def test_a_real_run_is_what_the_others_stand_for(desk: Desk) -> None:
    """`perform` is what both kinds of worker call."""
    desk.submit(payload={"x": 1})
    worker = desk.worker()
    desk.cycle()
    (claimed,) = worker.claim()
    assert perform(claimed).result == {"attempt": 1, "x": 1}
    assert belt("io").key.endswith("io")


def test_a_lost_worker_s_slots_are_free_again(desk: Desk) -> None:
    desk.pool("llm", concurrency_initial=1)
    desk.policy("inflight", "project", 1, algorithm="concurrency", window=None, lease_ttl=3600.0)
    desk.submit(type="http.request", payload={"pool": "llm", "path": "/"})
    worker = desk.worker("w1")
    desk.cycle()
    assert worker.claim()
    desk.skip(30)
    desk.reconcile()
    again = desk.worker("w2")
    desk.cycle()
    assert len(again.claim()) == 1


# What dead workers leave on Redis


def test_a_dead_worker_s_parcels_are_taken_off_redis(desk: Desk) -> None:
    """Taken with BLMOVE by a worker that dies: the job runs again, and the parcel is nobody's."""
    desk.submit(3)
    desk.worker("w1")
    desk.cycle()
    taken = client().lmove(belt("io").key, belt("io").intermediate_queue_key)
    assert taken is not None
    assert sweep(clock.now()) == 0, "its jobs are released: somebody may be about to claim them"
    desk.reconcile()
    assert sweep(clock.now()) == 1
    assert client().keys("rq:job:*") == []
    assert client().llen(belt("io").intermediate_queue_key) == 0
    desk.run_until_done(desk.worker("w2"))
    assert {row.status for row in Job.objects.all()} == {Status.COMPLETED}


# Slots


def test_a_job_s_slot_lasts_as_long_as_the_job_may(desk: Desk) -> None:
    """Longer than the policy's own `lease_ttl`, which is for callers that never settle."""
    desk.policy("inflight", "project", 1, algorithm="concurrency", window=None, lease_ttl=1.0)
    desk.submit(2, timeout=600)
    worker = desk.worker()
    desk.cycle()
    (first,) = worker.claim()
    time.sleep(1.2)  # Redis's own clock: the policy's lease would be over
    desk.cycle()
    assert worker.claim() == [], "it still runs"
    worker.settle([first])
    desk.cycle()
    assert len(worker.claim()) == 1


def test_a_slot_is_given_back_when_redis_is_there_again(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    from queues import settlement
    from quotas.engine.errors import LimiterUnavailable

    desk.policy("inflight", "project", 1, algorithm="concurrency", window=None)
    desk.submit(2)
    worker = desk.worker()
    desk.cycle()

    def away() -> None:
        raise LimiterUnavailable("away")

    with monkeypatch.context() as patched:
        patched.setattr(settlement, "limiter", away)
        worker.settle(worker.claim())
        assert settlement.retry_unsettled() == 1
    desk.cycle()
    assert worker.claim() == []
    assert settlement.retry_unsettled() == 0
    desk.cycle()
    assert len(worker.claim()) == 1
