"""What a caller was promised stays true: answers by key, contents of callbacks, totals of batches."""

from __future__ import annotations

import json
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, connections
from django.test.utils import CaptureQueriesContext

from queues import registry
from queues.errors import IdempotencyKeyReused, QueueFull
from queues.maintenance.pruner import prune
from queues.models import AnsweredKey, Batch, Callback, IntakePart, Job, Queue
from queues.selectors.batches import batch_progress
from queues.services import batches, cancel, dead_letters, intake, queue_actions, webhook
from queues.services.callbacks import outbox, receiver_of
from queues.services.submit import submit, submit_specs
from queues.specs import JobSpec, read_job
from queues.states import Stage, Status
from quotas import clock
from quotas.models import Pool, Project
from quotas.runtime.outbox_sender import AT_ONCE, PER_RECEIVER, SHARE, OutboxSender
from tests.integration.queues.conftest import wait_until
from tests.integration.queues.desk import Desk, failed, fresh
from tests.integration.queues.test_webhook_post import drip
from tests.integration.queues.test_webhook_post import receiving as talking
from tests.support.receiver import Receiver, receiving

YEAR = 400 * 86400.0


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


def spec(**fields: Any) -> JobSpec:
    return read_job({"type": "test.echo", **fields})


def address(receiver: Receiver) -> str:
    return f"http://{receiver.address}/hook"


# Idempotency keys that a twin answered


def test_a_key_that_a_twin_answered_goes_on_to_mean_it(desk: Desk) -> None:
    project = desk.project()
    (first,) = submit_specs(project, [spec(unique_for=60, idempotency_key="one")])
    (second,) = submit_specs(project, [spec(unique_for=60, idempotency_key="two")])
    assert (second.job.pk, second.created) == (first.job.pk, False)
    desk.run_until_done(desk.worker())
    (again,) = submit_specs(project, [spec(unique_for=60, idempotency_key="two")])
    assert (again.job.pk, again.created) == (first.job.pk, False)
    with pytest.raises(IdempotencyKeyReused):
        submit_specs(project, [spec(unique_for=60, idempotency_key="two", payload={"other": 1})])
    with pytest.raises(IdempotencyKeyReused):
        submit_specs(project, [spec(idempotency_key="two")])
    (new,) = submit_specs(project, [spec(unique_for=60, idempotency_key="three")])
    assert new.created, "a new key after the end is a new job"


def test_the_same_in_a_bulk_and_from_python(desk: Desk) -> None:
    project = desk.project()
    specs = [spec(unique_for=60, idempotency_key=f"k{number}") for number in range(3)]
    _, ids, _ = batches.submit_bulk(project, [*specs, specs[1]])
    assert len(set(ids)) == 1
    alone = submit("test.echo", project="acme", unique_for=60, idempotency_key="k9")
    assert alone.uid == ids[0]
    desk.run_until_done(desk.worker())
    assert submit("test.echo", project="acme", unique_for=60, idempotency_key="k9").uid == ids[0]
    _, again, _created = batches.submit_bulk(project, specs)
    assert again == [ids[0]] * 3
    assert Job.objects.count() == 1


def test_a_batch_that_grows_by_twins_knows_the_request_again(desk: Desk) -> None:
    project = desk.project()
    batch, _, _ = batches.submit_bulk(project, [spec(payload={"a": 1})], stays_open=True)
    (twin,) = submit_specs(project, [spec(unique_for=60)])
    grow = {"uid": batch.uid, "idempotency_key": "grow", "request_hash": "h"}
    _, first, created = batches.submit_bulk(project, [spec(unique_for=60)], **grow)  # type: ignore[arg-type]
    assert (first, created) == ([twin.job.uid], True)
    batches.seal(batch)
    desk.run_until_done(desk.worker())
    _, again, created = batches.submit_bulk(project, [spec(unique_for=60)], **grow)  # type: ignore[arg-type]
    assert (again, created) == (first, False)


def test_a_key_is_known_as_long_as_its_job_is(desk: Desk, settings: Any) -> None:
    project = desk.project()
    submit_specs(project, [spec(unique_for=60), spec(unique_for=60, idempotency_key="two")])
    desk.run_until_done(desk.worker())
    prune(clock.now())
    assert AnsweredKey.objects.count() == 1
    prune(clock.now() + timedelta(seconds=YEAR))
    assert (AnsweredKey.objects.count(), Job.objects.count()) == (0, 0)


def test_what_was_accepted_is_answered_whatever_would_be_accepted_now(desk: Desk, type_of: Any) -> None:
    project = desk.project()
    desk.queue("q", max_size=1)
    desk.pool("llm")

    @type_of("test.passing")
    def passing(job: Any) -> None:
        """Is not known for long."""

    call = {"type": "http.request", "payload": {"pool": "llm", "path": "/"}, "idempotency_key": "call"}
    full, gone, called = (
        read_job(body)
        for body in (
            {"type": "test.echo", "queue": "q", "idempotency_key": "full"},
            {"type": "test.passing", "idempotency_key": "gone"},
            call,
        )
    )
    first = [submit_specs(project, [one])[0].job.uid for one in (full, gone, called)]
    queue_actions.drain(Queue.objects.get(name="q"), actor="test", reason="full")
    Pool.objects.all().delete()
    desk.renew_configuration()
    registry.unregister("test.passing")
    again = [submit_specs(project, [one])[0] for one in (full, gone, called)]
    assert [answer.job.uid for answer in again] == first and not any(answer.created for answer in again)


@pytest.mark.parametrize("state", ["delayed", "held", "retrying"])
def test_twins_are_found_in_every_way_of_waiting(desk: Desk, state: str) -> None:
    project = desk.project()
    desk.queue("q", retry={"strategy": "fixed", "initial": 600.0, "max": 600.0})
    (other,) = desk.submit(delay=600)
    extra = {"delayed": {"delay": 600}, "held": {"after": [other.uid]}, "retrying": {}}[state]
    (first,) = submit_specs(project, [spec(queue="q", unique_for=900, **extra)])
    if state == "retrying":
        worker = desk.worker()
        desk.cycle()
        worker.settle(worker.claim(), failed("server"))
        assert fresh(first.job).status == Status.RETRYING
    (twin,) = submit_specs(project, [spec(queue="q", unique_for=900)])
    assert twin.job.pk == first.job.pk


# Bulks


def bulk(count: int, **fields: Any) -> list[JobSpec]:
    return [spec(payload={"number": number}, **fields) for number in range(count)]


@pytest.mark.parametrize("kind", ["plain", "unique", "after", "keys"])
def test_a_large_bulk_asks_sql_no_question_for_each_row(desk: Desk, kind: str) -> None:
    """Ten times the jobs: about ten times the inserts, each of many rows, and far from one statement for each job."""
    project = desk.project()
    (other,) = desk.submit()
    (ended,) = desk.submit()
    cancel.cancel(ended.pk, actor="test")
    fields: dict[str, Any] = {
        "plain": {}, "unique": {"unique_for": 60}, "after": {"after": [other.uid]}, "keys": {},
    }[kind]  # fmt: skip
    specs = bulk(2000, **fields)
    if kind == "keys":
        specs = [spec(idempotency_key=f"k{number}") for number in range(2000)]
    with CaptureQueriesContext(
        connection,
    ) as seen:
        _, ids, _ = batches.submit_bulk(project, specs)
    assert len(set(ids)) == 2000 and Job.objects.filter(uid__in=ids[:500]).count() == 500
    others = [query["sql"] for query in seen.captured_queries if not query["sql"].startswith("INSERT")]
    assert len(others) < 200, Counter(sql[:60] for sql in others).most_common(5)


def test_many_that_wait_for_one_are_released_and_cancelled_together(desk: Desk) -> None:
    project = desk.project()
    (good,) = desk.submit()
    (bad,) = desk.submit()
    batches.submit_bulk(project, bulk(300, after=[good.uid]))
    batches.submit_bulk(project, bulk(300, after=[good.uid, bad.uid]))
    with CaptureQueriesContext(connection) as seen:
        cancel.cancel(bad.pk, actor="test")
    assert len(seen) < 100
    assert Job.objects.filter(status=Status.CANCELLED).count() == 301
    with CaptureQueriesContext(connection) as seen:
        desk.run_until_done(desk.worker(places=1000))
    assert Job.objects.filter(status=Status.COMPLETED).count() == 301


def test_a_bulk_whose_process_died_is_written_by_the_dispatcher(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    project = desk.project()
    desk.queue("small", max_size=600)
    for name in ("finish", "finish_own"):
        monkeypatch.setattr(intake, name, lambda parts: None)  # killed behind its commit
    specs = bulk(500, queue="small", unique_for=60, idempotency_key=None)
    batch, ids, _ = batches.submit_bulk(project, specs, name="whole", idempotency_key="b", request_hash="h")
    monkeypatch.undo()
    assert (Job.objects.count(), IntakePart.objects.count()) == (0, 5)
    facts = batch_progress(Batch.objects.get())
    assert (facts.total, facts.totals["pending"]) == (500, 500)
    with pytest.raises(QueueFull):
        submit_specs(project, bulk(101, queue="small"))
    intake.finish_orphans(clock.now())
    assert not Job.objects.exists(), "its process may still run it"
    for _ in range(2):
        intake.finish_orphans(clock.now() + timedelta(seconds=6))
    assert not IntakePart.objects.exists()
    assert list(Job.objects.order_by("pk").values_list("uid", flat=True)) == ids
    assert Job.objects.filter(batch=batch, stage=Stage.READY).count() == 500


def test_who_repeats_a_bulk_or_meets_its_keys_finishes_it(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    project = desk.project()
    specs = [spec(payload={"n": number}, unique_for=60, idempotency_key=f"k{number}") for number in range(450)]
    for name in ("finish", "finish_own"):
        monkeypatch.setattr(intake, name, lambda parts: None)
    _, ids, _ = batches.submit_bulk(project, specs)
    monkeypatch.undo()
    assert not Job.objects.exists()
    (by_twin,) = submit_specs(project, [spec(payload={"n": 449}, unique_for=60)])
    assert (by_twin.job.uid, by_twin.created) == (ids[449], False)
    assert Job.objects.count() == 450
    (by_key,) = submit_specs(project, [specs[7]])
    assert by_key.job.uid == ids[7]


def test_a_large_bulk_that_is_refused_leaves_nothing(desk: Desk) -> None:
    project = desk.project()
    desk.queue("small", max_size=300)
    desk.submit(1, queue="small")
    with pytest.raises(QueueFull):
        batches.submit_bulk(project, bulk(300, queue="small"))
    assert (Job.objects.count(), Batch.objects.count(), IntakePart.objects.count()) == (1, 0, 0)


def test_two_large_bulks_of_twins_at_once_make_each_job_once(desk: Desk) -> None:
    project = desk.project()
    found: list[list[str]] = []

    def one() -> None:
        try:
            found.append(batches.submit_bulk(project, bulk(400, unique_for=60))[1])
        finally:
            connections.close_all()

    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] == found[1]
    assert (Job.objects.count(), IntakePart.objects.count()) == (400, 0)


# Contents of callbacks


def test_a_callback_says_what_happened_also_after_a_replay(desk: Desk, receiver: Receiver) -> None:
    receiver.statuses = [500, 500, 200]
    desk.queue("q", retry={"strategy": "fixed", "max_attempts": 1})
    (job,) = desk.submit(queue="q", callback_url=address(receiver))
    worker = desk.worker()
    desk.cycle()
    worker.settle(worker.claim(), failed("server", "it broke"))
    assert outbox.send_due() == 1
    dead_letters.retry(fresh(job), actor="test")
    Callback.objects.update(due_at=clock.now())
    assert outbox.send_due() == 1
    desk.run_until_done(worker)
    Callback.objects.filter(event="job.dead").update(due_at=clock.now())
    while outbox.send_due():
        continue
    body = [
        (headers["webhook-id"], json.dumps(body)) for _, headers, body in receiver.got if body["type"] == "job.dead"
    ]
    assert len(body) == 3 and len(set(body)) == 1, "the same id says the same"
    data = json.loads(body[0][1])["data"]
    assert (data["status"], data["category"], data["replays"]) == ("dead", "server", 0)
    assert data["attempts"][0]["outcome"] == "failed" and data["dead_letter"]
    assert [body["data"]["status"] for _, _, body in receiver.got if body["type"] == "job.completed"] == ["completed"]


def test_a_batchs_callback_says_what_it_was(desk: Desk, receiver: Receiver) -> None:
    receiver.statuses = [500, 200]
    project = desk.project()
    desk.queue("q", retry={"strategy": "fixed", "max_attempts": 1})
    batch, _, _ = batches.submit_bulk(project, bulk(2, queue="q"), callback_url=address(receiver))
    worker = desk.worker()
    desk.cycle()
    worker.settle(worker.claim(), failed("server"))
    assert outbox.send_due() == 1
    for job in batch.jobs.all():
        dead_letters.retry(job, actor="test")
    Callback.objects.update(due_at=clock.now())
    assert outbox.send_due() == 1
    first, second = (body for _, _, body in receiver.got)
    assert first == second and first["data"]["totals"]["dead"] == 2


def test_a_secret_member_is_in_no_stored_callback(desk: Desk, receiver: Receiver) -> None:
    desk.submit(type="test.secret", payload={"token": "hush-hush"}, callback_url=address(receiver))
    desk.run_until_done(desk.worker())
    assert "[redacted]" in Callback.objects.get().body
    assert "hush-hush" not in Callback.objects.get().body


def test_a_callback_from_before_contents_were_stored_keeps_what_it_first_says(desk: Desk, receiver: Receiver) -> None:
    receiver.statuses = [500, 200]
    (job,) = desk.submit(callback_url=address(receiver))
    cancel.cancel(job.pk, actor="test")
    Callback.objects.update(body="", receiver="")
    outbox.send_due()
    Job.objects.update(reason="something else")
    Callback.objects.update(due_at=clock.now())
    outbox.send_due()
    assert receiver.got[0][2] == receiver.got[1][2]


# Retention


def test_retention_keeps_what_is_still_to_be_delivered(desk: Desk, receiver: Receiver) -> None:
    receiver.statuses = [500, 500, 500, 200]
    project = desk.project()
    desk.submit(callback_url=address(receiver))
    batches.submit_bulk(project, bulk(1), callback_url=address(receiver))
    (done,) = desk.submit(callback_url="http://127.0.0.1:1/")
    desk.run_until_done(desk.worker())
    Callback.objects.filter(job=done).update(due_at=None)
    for _ in range(2):
        prune(clock.now() + timedelta(seconds=YEAR))
    assert (Job.objects.count(), Batch.objects.count()) == (0, 0)
    assert Callback.objects.filter(due_at__isnull=False).count() == 2
    assert Callback.objects.count() == 2, "what was given up goes with its job"
    for _ in range(3):
        Callback.objects.filter(due_at__isnull=False).update(due_at=clock.now())
        outbox.send_due()
    assert {body["type"] for _, _, body in receiver.got} == {"job.completed", "batch.completed"}
    assert not Callback.objects.filter(delivered_at=None).exists()
    prune(clock.now() + timedelta(seconds=YEAR))
    assert not Callback.objects.exists()


@pytest.mark.parametrize("edge", ["age", "count"])
def test_the_totals_of_a_running_batch_stay(desk: Desk, settings: Any, edge: str) -> None:
    project = desk.project()
    batch, _, _ = batches.submit_bulk(project, bulk(5), stays_open=True)
    desk.run_until_done(desk.worker())
    batches.submit_bulk(project, bulk(1, delay=3600), uid=batch.uid)
    if edge == "count":
        settings.RETENTION_COUNT = 0
    prune(clock.now() + timedelta(seconds=YEAR if edge == "age" else 0))
    facts = batch_progress(Batch.objects.get())
    assert (facts.total, facts.totals["completed"], facts.totals["pending"]) == (6, 5, 1)
    assert Job.objects.count() == 6, "jobs of a batch that runs stay"


def test_the_totals_of_an_ended_batch_outlive_its_jobs(desk: Desk, settings: Any) -> None:
    project = desk.project()
    desk.queue("q", retry={"strategy": "fixed", "max_attempts": 1})
    _, ids, _ = batches.submit_bulk(project, bulk(5, queue="q"))
    cancel.cancel(Job.objects.get(uid=ids[0]).pk, actor="test")
    worker = desk.worker()
    desk.cycle()
    claimed = worker.claim()
    worker.settle(claimed[:1], failed("server"))
    worker.settle(claimed[1:])
    settings.RETENTION_COUNT = 0
    prune(clock.now())
    assert Job.objects.count() == 1, "the dead one waits for somebody"
    facts = batch_progress(Batch.objects.get())
    assert facts.total == 5
    assert {name: count for name, count in facts.totals.items() if count} == {
        "completed": 3, "cancelled": 1, "dead": 1,
    }  # fmt: skip
    dead_letters.retry(Job.objects.get(), actor="test")
    desk.run_until_done(worker)
    prune(clock.now())
    prune(clock.now())
    facts = batch_progress(Batch.objects.get())
    assert (facts.total, facts.totals["completed"], facts.totals["dead"]) == (5, 4, 0)


def test_a_batch_stays_as_long_as_the_job_that_ends_it(desk: Desk) -> None:
    project = desk.project()
    desk.queue("q", retry={"strategy": "fixed", "max_attempts": 1})
    batches.submit_bulk(project, bulk(1), then=spec(queue="q"))
    worker = desk.worker()
    desk.cycle()
    worker.settle(worker.claim())
    desk.cycle()
    worker.settle(worker.claim(), failed("server"))
    prune(clock.now() + timedelta(seconds=YEAR))
    assert (Job.objects.count(), Batch.objects.count()) == (1, 1)
    dead_letters.retry(Job.objects.get(), actor="test")
    desk.run_until_done(desk.worker("w2"))
    for _ in range(2):
        prune(clock.now() + timedelta(seconds=YEAR))
    assert (Job.objects.count(), Batch.objects.count()) == (0, 0)


def test_what_others_wait_for_stays(desk: Desk, settings: Any) -> None:
    settings.RETENTION_COUNT = 0
    (done,) = desk.submit()
    desk.run_until_done(desk.worker())
    (other,) = desk.submit(delay=3600)
    desk.submit(after=[done.uid, other.uid])
    prune(clock.now())
    assert Job.objects.filter(pk=done.pk).exists()
    cancel.cancel(other.pk, actor="test")
    prune(clock.now())
    assert not Job.objects.exists(), "the one that waited was cancelled, and no job waits any more"


# How callbacks share the sender's threads


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("http://Example.com/a", "http://example.com:80/b?c"),
        ("https://example.com./", "https://example.com:443/"),
        ("http://[::1]:8000/", "http://[::1]:8000/x"),
    ],
)
def test_a_receiver_is_the_same_in_every_spelling(one: str, other: str) -> None:
    assert receiver_of(one) == receiver_of(other)


@pytest.fixture
def silent() -> Iterator[int]:
    """A port at which every address of this machine's own network is called and no server ever answers."""
    with socket.create_server(("0.0.0.0", 0), backlog=512) as listening:
        yield listening.getsockname()[1]


def due(project: Project, url: str) -> None:
    now = clock.now()
    Callback.objects.create(
        project=project, url=url, receiver=receiver_of(url), event="job.dead", body="{}", created_at=now, due_at=now
    )


@pytest.fixture
def sender(monkeypatch: pytest.MonkeyPatch) -> Iterator[OutboxSender[Callback]]:
    """One whose tries last three seconds at most; the test is its thread."""
    monkeypatch.setattr(webhook, "DEADLINE", 3.0)
    made = OutboxSender(lambda: True, outbox, "callbacks")
    yield made
    wait_until(lambda: not made.underway, 30.0)


def test_neither_a_receiver_nor_a_project_takes_all_places(
    desk: Desk, sender: OutboxSender[Callback], silent: int, receiver: Receiver
) -> None:
    acme, globex = desk.project("acme"), desk.project("globex")
    for number in range(1, 21):
        for _ in range(4):
            due(acme, f"http://127.0.0.{number}:{silent}/")
    due(globex, address(receiver))
    while sender.begin_some():
        continue
    wait_until(lambda: receiver.got)
    assert Callback.objects.filter(project=acme, tries=0).count() == 80, "none of them had its end yet"
    assert sender.underway_of(acme.pk) == SHARE
    assert max(sender.underway.values()) == PER_RECEIVER


def test_receivers_that_were_slow_share_half_of_the_places(
    desk: Desk, sender: OutboxSender[Callback], silent: int, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quotas.runtime.outbox_sender.SLOW_TRY", 1.0)
    projects = [desk.project(f"p{number}") for number in range(4)]
    for number in range(1, AT_ONCE + 1):
        due(projects[number % 4], f"http://127.0.0.{number}:{silent}/")
    while sender.begin_some():
        continue
    wait_until(lambda: not sender.underway, 30.0)
    assert Callback.objects.filter(tries=1).count() == AT_ONCE, "at first it is not known that they are slow"
    Callback.objects.update(due_at=clock.now())
    while sender.begin_some():
        continue
    assert sender.underway.total() == SHARE
    due(projects[0], address(receiver))
    sender.begin_some()
    wait_until(lambda: receiver.got)


def test_callbacks_of_a_dripping_receiver_end_and_others_are_delivered(
    desk: Desk, sender: OutboxSender[Callback], receiver: Receiver
) -> None:
    project = desk.project()
    with talking(drip(b"HTTP/1.1 200 OK\r\nX-Slow: ")) as port:
        for _ in range(8):
            due(project, f"http://127.0.0.1:{port}/")
        due(project, address(receiver))
        while not receiver.got:
            sender.begin_some()
        wait_until(lambda: not sender.underway, 30.0)
    assert Callback.objects.filter(error="TooSlow").count() == PER_RECEIVER
