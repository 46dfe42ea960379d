"""Automatic replay: transient kinds, as often as the policy says, after its time."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from django.utils import timezone

from queues.lifecycle import dead_letters
from queues.models import DeadLetter, Job, Queue, RetryPolicy
from queues.services.auto_replay import replay_due
from queues.services.defaults import create_defaults
from queues.services.submit import submit
from queues.states import Stage, Status
from queues.tasks import task
from quotas.models import Project

pytestmark = pytest.mark.django_db(transaction=True)


@task(name="tests.auto_replay.nothing", queue="batch")
def nothing(job: object) -> None:
    """Does nothing."""


@pytest.fixture
def patient() -> RetryPolicy:
    create_defaults()
    Project.objects.create(slug="acme")
    policy = RetryPolicy.objects.create(name="patient", auto_replays=1, auto_replay_after=600)
    queue = Queue.objects.get(name="batch")
    queue.retry_policy = policy
    queue.save()
    return policy


def dead(category: str, at: datetime) -> Job:
    job = submit("tests.auto_replay.nothing", project="acme")
    Job.objects.filter(pk=job.pk).update(stage=Stage.DONE, status=Status.DEAD, category=category, error="it broke")
    job.refresh_from_db()
    dead_letters.write([job], at)
    return job


def test_a_transient_letter_is_replayed_once_and_after_its_time(patient: RetryPolicy) -> None:
    now = timezone.now()
    job = dead("server", now)
    assert replay_due(now + timedelta(seconds=599)) == 0

    assert replay_due(now + timedelta(seconds=601)) == 1

    job.refresh_from_db()
    assert (job.status, job.stage, job.replays) == (Status.PENDING, Stage.READY, 1)
    assert DeadLetter.objects.get().handled_by == "auto-replay"
    Job.objects.filter(pk=job.pk).update(stage=Stage.DONE, status=Status.DEAD)
    job.refresh_from_db()
    dead_letters.write([job], now)
    assert replay_due(now + timedelta(seconds=2000)) == 0, "the second death is for a person"


@pytest.mark.parametrize("category", ["auth", "code", "validation", "poison"])
def test_what_does_not_pass_by_itself_waits_for_a_person(patient: RetryPolicy, category: str) -> None:
    now = timezone.now()
    dead(category, now)
    assert replay_due(now + timedelta(days=1)) == 0


def test_without_being_asked_nothing_is_replayed() -> None:
    create_defaults()
    Project.objects.create(slug="acme")
    now = timezone.now()
    dead("server", now)
    assert replay_due(now + timedelta(days=1)) == 0
