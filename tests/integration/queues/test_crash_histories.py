"""A process that dies after any commit of a job's life: nothing is lost and nothing settles twice.

Each step runs once as it should, once with every message lost (Redis emptied), and once for each of its commits with
the process dead right behind it. Whatever happened, recovery must reach what normal operation reaches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from due_work_harness import CallableDelivery, HandoffHistory, assert_crash_at_every_commit_converges, configure
from due_work_harness.integrations.django import django_host

from queues import wakeups
from queues.connection import client
from queues.deliveries import Ended
from queues.lifecycle.delivery import finish as settle
from queues.maintenance.reconciler import Reconciler
from queues.models import Attempt, Batch, DeadLetter, Job
from queues.selectors.jobs import job_counts
from queues.services.draft import prepare
from queues.services.submission import accept
from queues.services.submit import submit_specs
from queues.specs import read_job
from queues.states import FINAL, Stage, Status
from queues.worker import claims
from quotas import clock
from tests.integration.queues.desk import OK, Desk, failed, fresh
from tests.integration.queues.dying import killer


@pytest.fixture(autouse=True)
def host() -> None:
    made = django_host(production_packages={"queues"}, lifecycle_proofs=False)
    configure(made.model_copy(update={"worker_killer": killer}))


class Story:
    """One job with a follower and a batch, brought to the moment before a step."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.turn = 0

    def recover(self) -> None:
        """What production does by itself, hours in a moment: the reconciler, the dispatcher, workers."""
        desk = self.desk
        desk.dispatcher.forget()
        for _ in range(6):
            desk.skip(8)
            desk.reconcile()
            desk.skip(70)  # longer than any retry waits
            io = desk.worker(f"io-{self.turn}", "io", 50)
            cpu = desk.worker(f"cpu-{self.turn}", "cpu", 50)
            desk.cycle()
            for worker in (io, cpu):
                worker.claim()
                worker.run()
            counts = job_counts()
            if not sum(counts[status] for status in Status.values if status not in FINAL):
                return

    def observe(self, job: Job) -> Any:
        """Everything that a caller could distinguish, and how often it was settled."""
        row = fresh(job)
        counted = Attempt.objects.filter(job=job).exclude(outcome="lost").values_list("outcome", "category")
        followers = sorted(Job.objects.filter(dependencies__after=job).values_list("status", flat=True))
        ended = Batch.objects.filter(jobs=job, finished_at__isnull=False).exists()
        return row.status, sorted(counted), DeadLetter.objects.filter(job=job).count(), followers, ended

    def delivery(self) -> CallableDelivery:
        return CallableDelivery(name="jobs", recover=self.recover, lose=lambda: client().flushall())

    def job(self, **fields: Any) -> Job:
        """A job in a batch of its own, and one that waits for it. Earlier stories are over."""
        self.turn += 1
        Job.objects.exclude(stage=Stage.DONE).update(stage=Stage.DONE, status=Status.CANCELLED)
        client().flushall()
        project = self.desk.project()
        batch = Batch.objects.create(project=project, created_at=clock.now())
        body = read_job({"type": "test.echo", "payload": {"turn": self.turn}, **fields})
        (accepted,) = accept(prepare(project, [body]), batch=batch)
        submit_specs(project, [read_job({"type": "test.echo", "after": [accepted.job.uid]})])
        self.desk.worker("first", "io", 50)
        self.desk.dispatcher.forget()
        return accepted.job

    def on_belt(self, **fields: Any) -> Job:
        job = self.job(**fields)
        self.desk.cycle()
        return job

    def claimed(self, **fields: Any) -> tuple[Job, list[claims.Claimed]]:
        job = self.on_belt(**fields)
        row = fresh(job)
        return job, claims.claim([(row.pk, row.delivery)], "first")


def converges(story: Story, name: str, arrange: Callable[[], Any], act: Callable[[Any], Any], job: Any = None) -> None:
    of = job or (lambda handle: handle)
    history = HandoffHistory(
        name=name, arrange=arrange, transition=act, observe=lambda handle: story.observe(of(handle))
    )
    assert_crash_at_every_commit_converges(story.delivery(), history)


def test_submit(desk: Desk) -> None:
    """The caller who got no answer repeats the request under the same key, as recovery does here."""
    story = Story(desk)

    def arrange() -> dict[str, Any]:
        story.job()
        return {"type": "test.echo", "payload": {"turn": story.turn}, "idempotency_key": f"k-{story.turn}"}

    def observe(body: dict[str, Any]) -> Any:
        jobs = Job.objects.filter(idempotency_key=body["idempotency_key"])
        return jobs.count(), [story.observe(job)[:3] for job in jobs]

    def act(body: dict[str, Any]) -> Any:
        return submit_specs(desk.project(), [read_job(body)])

    history = HandoffHistory(name="submit", arrange=arrange, transition=act, observe=observe)
    assert_crash_at_every_commit_converges(story.delivery(), history)


def test_dispatch(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    story = Story(desk)
    # Maintenance is due by the clock, so that each run would commit another number of times.
    monkeypatch.setattr(desk.maintenance, "run_due", lambda now: None)

    def act(job: Job) -> Any:
        desk.dispatcher.lead()
        return desk.dispatcher.cycle(wakeups.Wakeups())

    converges(story, "dispatch", story.job, act)


def test_claim(desk: Desk) -> None:
    story = Story(desk)

    def act(job: Job) -> Any:
        row = fresh(job)
        return claims.claim([(row.pk, row.delivery)], "first")

    converges(story, "claim", story.on_belt, act)


@pytest.mark.parametrize("result", [OK, failed("server")], ids=["succeeded", "retried"])
def test_settle(desk: Desk, result: Any) -> None:
    """What is final at once (a dead letter, its followers, its batch) is one commit, so that nothing is left to recover."""
    story = Story(desk)

    def act(handle: tuple[Job, list[claims.Claimed]]) -> Any:
        return settle([Ended(item, result) for item in handle[1]], "first")

    converges(story, "settle", story.claimed, act, job=lambda handle: handle[0])


def test_reap(desk: Desk) -> None:
    story = Story(desk)

    def arrange() -> tuple[Job, Reconciler]:
        job, _ = story.claimed()
        reconciler = Reconciler()
        reconciler.run(clock.now())
        for _ in range(5):
            desk.skip(4)
            reconciler._last = clock.now()
        desk.skip(4)
        return job, reconciler

    def act(handle: tuple[Job, Reconciler]) -> Any:
        return Reconciler.run(handle[1], clock.now())

    converges(story, "reap", arrange, act, job=lambda handle: handle[0])


def test_release_anew(desk: Desk) -> None:
    story = Story(desk)

    def arrange() -> tuple[Job, Reconciler]:
        job = story.on_belt()
        client().flushall()
        return job, Reconciler()

    def act(handle: tuple[Job, Reconciler]) -> Any:
        return Reconciler.after_loss(handle[1])

    converges(story, "release anew", arrange, act, job=lambda handle: handle[0])
