"""Accepting jobs: idempotency, bulk, room, what a queue's state allows."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import connection, connections

from queues.connection import client
from queues.errors import BatchClosed, IdempotencyKeyReused, InvalidJob, QueueDraining, QueueFull, QueueTooSmall
from queues.models import Batch, DeadLetter, Job
from queues.selectors.explanation import explain
from queues.services import batches, dead_letters, queue_actions
from queues.services.submit import submit, submit_specs
from queues.specs import JobSpec, read_job
from queues.states import Stage, Status
from quotas import events
from quotas.models import Project
from quotas.testing import capture_events
from tests.integration.queues.desk import Desk, failed, fresh


def at_once(number: int, act: Callable[[int], Any], threads: int = 16) -> list[Any]:
    """Do it `number` times from threads that begin together; what was raised stands in the list."""
    gate = threading.Barrier(min(threads, number))

    def one(turn: int) -> Any:
        if turn < gate.parties:
            gate.wait()
        try:
            return act(turn)
        except Exception as error:  # noqa: BLE001 - returned, and compared by the test
            return error
        finally:
            connections.close_all()

    with ThreadPoolExecutor(gate.parties) as pool:
        return list(pool.map(one, range(number)))


def spec(**fields: Any) -> JobSpec:
    return read_job({"type": "test.echo", **fields})


def test_new_jobs_are_an_event_of_their_queue_and_project(desk: Desk) -> None:
    """Whatever they wait for; once for a transaction; not for what was found, nor for what is rolled back."""
    project = desk.project()
    later = {"run_at": "2099-01-01T00:00:00Z"}
    with capture_events(events.JobsSubmitted) as seen:
        first = [spec(queue="batch"), spec(queue="batch", **later), spec(queue="exports", idempotency_key="k")]
        submit_specs(project, first)
        submit_specs(project, first[2:])
        with pytest.raises(InvalidJob):
            submit_specs(project, [spec(queue="batch"), spec(queue="batch", after=["no-such-job"])])
    assert {(event.queue, event.count, event.project) for event in seen} == {
        ("batch", 2, project.slug), ("exports", 1, project.slug),
    }  # fmt: skip
    assert len(seen) == 2


def test_fifty_equal_submits_with_one_key_are_one_job(desk: Desk) -> None:
    project = desk.project()

    def one(turn: int) -> tuple[str, bool]:
        (answer,) = submit_specs(project, [spec(idempotency_key="k", payload={"a": 1})])
        return answer.job.uid, answer.created

    answers = at_once(50, one)
    assert Counter(created for _, created in answers) == {True: 1, False: 49}
    assert len({uid for uid, _ in answers}) == 1
    assert Job.objects.count() == 1


def test_the_key_holds_after_completion_and_after_redis_lost_its_memory(desk: Desk) -> None:
    (job,) = desk.submit(idempotency_key="k", payload={"a": 1})
    worker = desk.worker()
    desk.run_until_done(worker)
    client().flushall()
    (again,) = desk.submit(idempotency_key="k", payload={"a": 1})
    assert again.uid == job.uid
    with pytest.raises(IdempotencyKeyReused):
        desk.submit(idempotency_key="k", payload={"a": 2})
    assert Job.objects.count() == 1


def test_the_key_is_the_projects_own(desk: Desk) -> None:
    (one,) = desk.submit(idempotency_key="k", project="a")
    (other,) = desk.submit(idempotency_key="k", project="b")
    assert one.uid != other.uid


def test_a_key_that_stands_twice_in_a_bulk(desk: Desk) -> None:
    project = desk.project()
    same = [spec(idempotency_key="k"), spec(), spec(idempotency_key="k")]
    _, ids, _ = batches.submit_bulk(project, same)
    assert (ids[0] == ids[2], ids[0] == ids[1], Job.objects.count()) == (True, False, 2)
    with pytest.raises(IdempotencyKeyReused):
        batches.submit_bulk(project, [spec(idempotency_key="l"), spec(idempotency_key="l", payload={"b": 1})])
    assert Job.objects.count() == 2


def test_a_bulk_is_accepted_whole_or_not_at_all(desk: Desk) -> None:
    project = desk.project()
    good = [spec() for _ in range(10)]
    for bad in (spec(queue="nowhere"), spec(type="no.such"), spec(type="http.request", payload={"path": "//x"})):
        with pytest.raises(InvalidJob) as caught:
            batches.submit_bulk(project, [*good, bad])
        assert all(error.pointer.startswith("/jobs/10/") for error in caught.value.errors)
    assert (Job.objects.count(), Batch.objects.count()) == (0, 0)


def test_a_bulk_with_a_key_is_accepted_once(desk: Desk) -> None:
    project = desk.project()
    specs = [spec(payload={"n": number}) for number in range(20)]

    def one(turn: int) -> tuple[str, tuple[str, ...], bool]:
        batch, ids, new = batches.submit_bulk(project, specs, idempotency_key="k", request_hash="h")
        return batch.uid, tuple(ids), new

    answers = at_once(12, one)
    assert len({(uid, ids) for uid, ids, _ in answers}) == 1
    assert sum(new for _, _, new in answers) == 1
    assert (Job.objects.count(), Batch.objects.count()) == (20, 1)
    with pytest.raises(IdempotencyKeyReused):
        batches.submit_bulk(project, specs, idempotency_key="k", request_hash="other")


def test_a_batch_grows_once_for_one_key(desk: Desk) -> None:
    project = desk.project()
    batch, _, _ = batches.submit_bulk(project, [spec()], stays_open=True)
    specs = [spec(payload={"n": number}) for number in range(5)]
    grow: Any = {"uid": batch.uid, "idempotency_key": "k", "request_hash": "h"}
    _, first, _ = batches.submit_bulk(project, specs, **grow)
    _, again, _ = batches.submit_bulk(project, specs, **grow)
    assert first == again
    assert batch.jobs.count() == 6
    with pytest.raises(IdempotencyKeyReused):
        batches.submit_bulk(project, specs, **{**grow, "request_hash": "other"})
    batches.submit_bulk(project, specs, **{**grow, "idempotency_key": "another"})
    assert batch.jobs.count() == 11


def test_200_racing_submits_at_five_places_left(desk: Desk) -> None:
    desk.queue("q", max_size=25)
    desk.submit(20, queue="q")
    project = desk.project()

    def one(turn: int) -> Any:
        return submit_specs(project, [spec(queue="q", payload={"n": turn})])

    answers = at_once(200, one)
    full = [answer for answer in answers if isinstance(answer, QueueFull)]
    assert len(answers) - len(full) == 5
    assert all(1 <= error.retry_after <= 60 for error in full)
    assert Job.objects.filter(stage=Stage.READY).count() == 25


def test_racing_bulks_fill_the_queue_and_no_more(desk: Desk) -> None:
    desk.queue("q", max_size=25)
    project = desk.project()
    answers = at_once(16, lambda turn: batches.submit_bulk(project, [spec(queue="q") for _ in range(10)]))
    assert sum(isinstance(answer, QueueFull) for answer in answers) == 14
    assert Job.objects.count() == 20


def test_what_runs_or_has_ended_takes_no_room(desk: Desk) -> None:
    desk.queue("q", max_size=3)
    desk.submit(3, queue="q")
    with pytest.raises(QueueFull):
        desk.submit(queue="q")
    worker = desk.worker()
    desk.cycle()
    desk.submit(3, queue="q")
    with pytest.raises(QueueFull):
        desk.submit(queue="q")
    worker.claim()
    worker.run()
    assert Job.objects.filter(status=Status.COMPLETED).count() == 3


def test_scheduled_retrying_and_held_jobs_take_room(desk: Desk) -> None:
    desk.queue("q", max_size=3, retry={"strategy": "fixed", "initial": 60.0})
    desk.submit(queue="q")
    worker = desk.worker()
    desk.cycle()
    worker.settle(worker.claim(), failed())  # waits for its retry
    (timed,) = desk.submit(queue="q", delay=60)
    desk.submit(queue="q", after=[timed.uid])
    with pytest.raises(QueueFull):
        desk.submit(queue="q")


def test_more_than_the_queue_could_ever_hold(desk: Desk) -> None:
    desk.queue("q", max_size=5)
    with pytest.raises(QueueTooSmall):
        desk.submit(6, queue="q")
    desk.queue("none", max_size=0)
    with pytest.raises(QueueTooSmall):
        desk.submit(queue="none")
    desk.queue("endless", max_size=None)
    desk.submit(6, queue="endless")


def test_a_draining_queue_accepts_nothing_and_a_paused_one_does(desk: Desk) -> None:
    queue = desk.queue("q")
    queue_actions.drain(queue, actor="t", reason="r")
    with pytest.raises(QueueDraining):
        desk.submit(queue="q")
    queue_actions.resume(queue, actor="t", reason="r")
    queue_actions.pause(queue, actor="t", reason="r")
    (job,) = desk.submit(queue="q")
    desk.worker()
    desk.renew_configuration()
    desk.cycle()
    assert fresh(job).stage == Stage.READY
    queue_actions.resume(queue, actor="t", reason="r")
    desk.renew_configuration()
    desk.cycle()
    assert fresh(job).stage == Stage.BELT


def test_a_draining_queue_finishes_what_it_has(desk: Desk) -> None:
    queue = desk.queue("q")
    desk.submit(3, queue="q")
    queue_actions.drain(queue, actor="t", reason="r")
    desk.renew_configuration()
    desk.run_until_done(desk.worker())
    assert Job.objects.filter(status=Status.COMPLETED).count() == 3


def test_a_queue_made_just_now_is_found(desk: Desk) -> None:
    from queues.models import Queue

    desk.submit()
    Queue.objects.create(name="brand-new")
    assert desk.submit(queue="brand-new")


def test_a_pool_made_just_now_is_found(desk: Desk) -> None:
    from quotas.models import Account, Pool, Provider

    desk.submit()
    provider = Provider.objects.create(name="p", base_url="http://127.0.0.1:9")
    pool = Pool.objects.create(name="brand-new", provider=provider)
    Account.objects.create(pool=pool, name="a", credential="x")
    project = Project.objects.get(slug="acme")
    assert submit_specs(project, [read_job({"type": "http.request", "payload": {"pool": "brand-new", "path": "/"}})])


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"type": "no.such"}, "/type"),
        ({"type": "test.echo", "queue": "nowhere"}, "/queue"),
        ({"type": "test.secret"}, "/payload/token"),
        ({"type": "http.request", "payload": {"path": "/"}}, "/payload/pool"),
        ({"type": "http.request", "payload": {"path": "/", "pool": "nowhere"}}, "/payload/pool"),
        ({"type": "test.echo", "after": ["nobody"]}, "/after/0"),
        ({"type": "test.echo", "batch": "nobody"}, "/batch"),
    ],
)
def test_names_that_nobody_knows(desk: Desk, body: dict[str, Any], pointer: str) -> None:
    project = desk.project()
    with pytest.raises(InvalidJob) as caught:
        submit_specs(project, [read_job(body)])
    assert [error.pointer for error in caught.value.errors] == [pointer]
    assert not Job.objects.exists()


def test_jobs_of_others_can_be_neither_waited_for_nor_joined(desk: Desk) -> None:
    (foreign,) = desk.submit(project="b")
    batch, _, _ = batches.submit_bulk(desk.project("b"), [spec()], stays_open=True)
    with pytest.raises(InvalidJob):
        desk.submit(project="a", after=[foreign.uid])
    with pytest.raises(InvalidJob):
        desk.submit(project="a", batch=batch.uid)


def test_from_python(desk: Desk) -> None:
    desk.project()
    job = submit("test.echo", project="acme", payload={"a": 1}, priority="high", delay=5)
    assert (job.priority, job.stage, job.payload) == (1, Stage.SCHEDULED, {"a": 1})
    with pytest.raises(InvalidJob):
        submit("test.echo", project="nobody")
    with pytest.raises(InvalidJob):
        submit("test.echo", project="acme", nonsense=1)


@pytest.mark.parametrize("estimate", [-1, 1.5, float("nan"), {"tokens": 2**60}, {"tokens": -3}, "many", None, [1]])
def test_an_estimate_of_the_type_that_is_none_is_the_submits_error(desk: Desk, type_of: Any, estimate: Any) -> None:
    @type_of("test.costly", cost=lambda **payload: estimate)
    def costly(job: Any) -> None: ...

    if estimate is None:
        assert desk.submit(type="test.costly")[0].cost == {"requests": 1}
    elif estimate == 1.5:
        assert desk.submit(type="test.costly")[0].cost == {"requests": 1, "tokens": 2}
    else:
        with pytest.raises(InvalidJob) as caught:
            desk.submit(type="test.costly")
        assert caught.value.errors[0].pointer.startswith("/cost")


def test_an_estimate_that_raises_is_the_submits_error(desk: Desk, type_of: Any) -> None:
    @type_of("test.costly", cost=lambda words: len(words))
    def costly(job: Any, words: Any) -> None: ...

    with pytest.raises(InvalidJob) as caught:
        desk.submit(type="test.costly", payload={"words": 3})
    assert caught.value.errors[0].pointer.startswith("/cost")


# Uniqueness


def test_a_twin_that_waits_or_runs_is_answered(desk: Desk) -> None:
    (one,) = desk.submit(unique_for=60, payload={"a": 1})
    assert desk.submit(unique_for=60, payload={"a": 1})[0].pk == one.pk
    assert desk.submit(unique_for=60, payload={"a": 2})[0].pk != one.pk
    assert desk.submit(unique_for=60, payload={"a": 1}, project="other")[0].pk != one.pk
    assert desk.submit(payload={"a": 1})[0].pk != one.pk, "without unique_for it is a job of its own"
    worker = desk.worker()
    desk.cycle()
    claimed = worker.claim()
    assert desk.submit(unique_for=60, payload={"a": 1})[0].pk == one.pk
    worker.settle(claimed)
    assert desk.submit(unique_for=60, payload={"a": 1})[0].pk != one.pk, "it has ended"


def test_uniqueness_ends_with_its_period(desk: Desk) -> None:
    (one,) = desk.submit(unique_for=60)
    desk.skip(61)
    assert desk.submit(unique_for=60)[0].pk != one.pk


def test_a_unique_key_stands_for_the_payload(desk: Desk) -> None:
    (one,) = desk.submit(unique_for=60, unique_key="k", payload={"a": 1})
    assert desk.submit(unique_for=60, unique_key="k", payload={"a": 2})[0].pk == one.pk


@pytest.mark.parametrize("max_size", [1000, None])
def test_racing_twins_are_one_job(desk: Desk, max_size: int | None) -> None:
    desk.queue("q", max_size=max_size)
    project = desk.project()
    answers = at_once(24, lambda turn: submit_specs(project, [spec(queue="q", unique_for=60)])[0].job.uid)
    assert len(set(answers)) == 1
    assert Job.objects.count() == 1


# Dependencies


def test_a_job_waits_for_all_that_it_names(desk: Desk) -> None:
    one, two = desk.submit(2)
    (last,) = desk.submit(after=[one.uid, two.uid], delay=5)
    worker = desk.worker()
    desk.cycle()
    first, second = worker.claim()
    worker.settle([first])
    assert fresh(last).stage == Stage.HELD
    worker.settle([second])
    assert fresh(last).stage == Stage.SCHEDULED, "it still has its own time to wait for"
    desk.skip(6)
    worker.report.begin()
    desk.run_until_done(worker)
    assert fresh(last).status == Status.COMPLETED


def test_what_waits_for_a_job_that_dies_is_cancelled_down_the_line(desk: Desk) -> None:
    (one,) = desk.submit(max_attempts=1)
    (two,) = desk.submit(after=[one.uid])
    (three,) = desk.submit(after=[two.uid])
    worker = desk.worker()
    desk.cycle()
    worker.settle(worker.claim(), failed("code"))
    for job in (two, three):
        row = fresh(job)
        assert (row.status, row.stage) == (Status.CANCELLED, Stage.DONE)
    assert one.uid in fresh(two).reason
    assert two.uid in fresh(three).reason


def test_what_waits_for_what_has_ended_already(desk: Desk) -> None:
    good, bad = desk.submit(2, max_attempts=1)
    worker = desk.worker()
    desk.cycle()
    first, second = worker.claim()
    worker.settle([first])
    worker.settle([second], failed("code"))
    (runs,) = desk.submit(after=[good.uid])
    (ends,) = desk.submit(after=[good.uid, bad.uid])
    assert fresh(runs).stage == Stage.READY
    assert fresh(ends).status == Status.CANCELLED


def test_a_job_that_ends_while_another_is_submitted_behind_it(desk: Desk) -> None:
    """Whichever comes first: the jobs that wait for it continue."""
    project = desk.project()
    worker = desk.worker(places=50)
    firsts = desk.submit(30)
    desk.cycle()
    claimed = {item.id: item for item in worker.claim()}

    def one(turn: int) -> Any:
        job = firsts[turn // 2]
        if turn % 2:
            return worker.settle([claimed[job.pk]])
        return submit_specs(project, [spec(after=[job.uid])])[0].job

    answers = at_once(60, one, threads=8)
    assert not [answer for answer in answers if isinstance(answer, Exception)]
    assert not Job.objects.filter(stage=Stage.HELD).exists()


# Batches


def test_a_batch_ends_with_its_last_job(desk: Desk) -> None:
    project = desk.project()
    batch, _, _ = batches.submit_bulk(project, [spec(), spec(), spec(max_attempts=1)])
    worker = desk.worker()
    desk.cycle()
    one, two, three = worker.claim()
    worker.settle([one])
    worker.settle([three], failed("code"))
    assert Batch.objects.get().finished_at is None
    worker.settle([two])
    assert Batch.objects.get().finished_at is not None
    with pytest.raises(BatchClosed):
        batches.submit_bulk(project, [spec()], uid=batch.uid)
    with pytest.raises(BatchClosed):
        desk.submit(batch=batch.uid)


def test_an_open_batch_ends_when_it_is_sealed(desk: Desk) -> None:
    project = desk.project()
    batch, _, _ = batches.submit_bulk(project, [spec()], stays_open=True)
    worker = desk.worker()
    desk.run_until_done(worker)
    assert Batch.objects.get().finished_at is None
    desk.submit(batch=batch.uid)
    desk.run_until_done(worker)
    batches.seal(batch)
    assert Batch.objects.get().finished_at is not None


def test_a_batch_ends_when_its_last_jobs_end_at_the_same_moment(desk: Desk) -> None:
    project = desk.project()
    for _ in range(8):
        batches.submit_bulk(project, [spec(), spec()])
    worker = desk.worker(places=50)
    desk.cycle()
    claimed = worker.claim()
    answers = at_once(16, lambda turn: worker.settle([claimed[turn]]))
    assert answers == [1] * 16
    assert Batch.objects.filter(finished_at=None).count() == 0


def test_on_which_database() -> None:
    """So that a report shows what the races above ran on."""
    assert connection.vendor in ("sqlite", "postgresql")


def test_a_batch_grows_behind_its_own_jobs_while_they_end(desk: Desk) -> None:
    """Transactions that end jobs lock jobs and then batches; so must those that add jobs that wait for a batch's jobs."""
    project = desk.project()
    worker = desk.worker(places=100)
    rounds = []
    for _ in range(20):
        batch, ids, _ = batches.submit_bulk(project, [spec(), spec()], stays_open=True)
        rounds.append((batch, ids))
    desk.cycle()
    claimed = {item.context.id: item for item in worker.claim()}

    def one(turn: int) -> Any:
        batch, ids = rounds[turn // 4]
        match turn % 4:
            case 0:
                return worker.settle([claimed[uid] for uid in ids])
            case 1:
                return batches.submit_bulk(project, [spec(after=ids[::-1])], uid=batch.uid)
            case 2:
                return submit_specs(project, [spec(after=ids, batch=batch.uid)])
            case _:
                return batches.seal(batch)

    answers = at_once(80, one, threads=8)
    wrong = [answer for answer in answers if isinstance(answer, Exception) and not isinstance(answer, BatchClosed)]
    assert not wrong
    assert not Job.objects.filter(stage=Stage.HELD).exists()
    desk.run_until_done(worker)
    assert not Batch.objects.filter(finished_at=None).exists()


def test_jobs_with_batches_and_whole_batches_come_at_the_same_time(desk: Desk) -> None:
    project = desk.project()
    desk.queue("q", max_size=1000)
    batch, _, _ = batches.submit_bulk(project, [spec(queue="q")], stays_open=True)

    def one(turn: int) -> Any:
        if turn % 2:
            return batches.submit_bulk(project, [spec(queue="q")], uid=batch.uid)
        return submit_specs(project, [spec(queue="q", batch=batch.uid)])

    assert not [answer for answer in at_once(60, one) if isinstance(answer, Exception)]
    assert batch.jobs.count() == 61


# What follows a batch


def test_a_job_runs_when_its_batch_is_complete_however_it_ended(desk: Desk) -> None:
    desk.queue("q", max_size=3)
    project = desk.project()
    batch, ids, _ = batches.submit_bulk(
        project, [spec(queue="q"), spec(queue="q", max_attempts=1)], then=spec(queue="q", payload={"n": "last"})
    )
    with pytest.raises(QueueFull):
        desk.submit(queue="q")
    last = Job.objects.get(pk=Batch.objects.get(pk=batch.pk).then_id)
    assert (last.stage, last.batch_id) == (Stage.HELD, None)
    assert explain(last).waits_for == f"batch {batch.uid} to be complete"
    worker = desk.worker()
    desk.cycle()
    one, two = worker.claim()
    worker.settle([one])
    assert fresh(last).stage == Stage.HELD
    worker.settle([two], failed("code"))
    assert fresh(last).stage == Stage.READY
    desk.run_until_done(worker)
    dead_letters.replay(DeadLetter.objects.get().pk, actor="t")
    desk.run_until_done(worker)
    assert Batch.objects.get().finished_at is not None
    assert fresh(last).attempts_made == 1, "once, though the batch was complete twice"
    assert len(ids) == 2


def test_what_follows_an_open_batch_waits_for_its_seal(desk: Desk) -> None:
    batch, _, _ = batches.submit_bulk(desk.project(), [spec()], stays_open=True, then=spec(delay=30))
    worker = desk.worker()
    desk.run_until_done_but(worker, 1)
    batches.seal(batch)
    last = Job.objects.get(closes=batch)
    assert last.stage == Stage.SCHEDULED, "its own time is still to come"
    desk.skip(31)
    desk.run_until_done(desk.worker("w2"))
    assert fresh(last).status == Status.COMPLETED


def test_what_follows_a_batch_may_be_cancelled_and_pruned(desk: Desk, settings: Any) -> None:
    from queues.maintenance.pruner import prune
    from queues.services import cancel
    from quotas import clock

    settings.RETENTION_DAYS = 1
    batch, _, _ = batches.submit_bulk(desk.project(), [spec()], then=spec())
    cancel.cancel(Job.objects.get(closes=batch).pk, actor="t")
    desk.run_until_done(desk.worker())
    desk.skip(86400 * 2)
    prune(clock.now())
    assert not Job.objects.exists()
    assert not Batch.objects.exists()


# Levels of priority


@pytest.mark.parametrize(
    ("levels", "kept"),
    [(10, list(range(10))), (3, [1, 1, 1, 1, 5, 5, 5, 8, 8, 8]), (2, [2] * 5 + [7] * 5), (1, [5] * 10)],
)
def test_a_queue_has_as_many_lines_as_levels(desk: Desk, levels: int, kept: list[int]) -> None:
    desk.queue("q", priority_levels=levels)
    assert [desk.submit(queue="q", priority=asked)[0].priority for asked in range(10)] == kept


def test_blank_is_not_absent(desk: Desk) -> None:
    for fields in ({"queue": ""}, {"batch": ""}):
        with pytest.raises(InvalidJob):
            desk.submit(**fields)
    (job,) = desk.submit(queue=None, batch=None, delivery=None, keys=None, cost=None)
    assert (job.queue.name, job.delivery_mode) == ("batch", "at_least_once")


def test_a_time_from_python_may_be_one(desk: Desk) -> None:
    desk.project()
    later = datetime(2030, 1, 31, 12, tzinfo=UTC)
    assert submit("test.echo", project="acme", run_at=later).not_before == later
    with pytest.raises(InvalidJob) as caught:
        submit("test.echo", project="acme", run_at=later.replace(tzinfo=None))
    assert caught.value.errors[0].pointer == "/run_at"
