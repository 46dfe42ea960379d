"""Queues are sampled once a minute; hours are summed up, also after a change of the leader, and old samples go."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from django.utils import timezone

from controlplane.admin.panels import queue_history as panel
from controlplane.admin.periods import PERIODS
from controlplane.models import QueueSample
from controlplane.observability.durations import added, bucketed, percentile
from controlplane.observability.queue_history import QueueHistory
from queues.models import Job, Queue
from queues.states import Stage, Status
from quotas.models import Project


@pytest.fixture
def queue(db: None) -> Queue:
    return Queue.objects.create(name="imports")


@pytest.fixture
def acme(db: None) -> Project:
    return Project.objects.create(slug="acme")


def minute_ago(now: datetime) -> datetime:
    return (now - timedelta(seconds=5)).replace(second=0, microsecond=0) - timedelta(minutes=1)


def ended(queue: Queue, project: Project, at: datetime, *, wait: float, run: float, status: str = "completed") -> Job:
    begun = at - timedelta(seconds=run)
    return Job.objects.create(
        project=project, queue=queue, type="t", payload={}, stage=Stage.DONE, status=Status(status), finished_at=at,
        started_at=begun, first_started_at=begun, created_at=begun - timedelta(seconds=wait),
    )  # fmt: skip


def test_a_minute_that_is_over_is_sampled_once(queue: Queue, acme: Project) -> None:
    now = timezone.now()
    minute = minute_ago(now)
    for number in range(4):
        ended(
            queue,
            acme,
            minute + timedelta(seconds=20),
            wait=1.5,
            run=0.3,
            status="dead" if number == 0 else "completed",
        )
    ended(queue, acme, minute - timedelta(seconds=20), wait=1, run=1)
    for priority, count in ((1, 2), (5, 3), (9, 4)):
        for _ in range(count):
            Job.objects.create(
                project=acme,
                queue=queue,
                type="t",
                payload={},
                priority=priority,
                created_at=minute + timedelta(seconds=1),
            )
    history = QueueHistory()
    assert history.note(now) == 1 and history.note(now) == 0
    assert QueueHistory().note(now) == 1, "a second leader finds the first one's sample"
    sample = QueueSample.objects.get(resolution="minute")
    assert (sample.at, sample.completed, sample.dead, sample.high + sample.normal + sample.low) == (minute, 3, 1, 9)
    assert sample.high and sample.normal and sample.low
    assert sample.enqueued == 9 + 4, "of those that ended, four were accepted in the same minute"
    assert 1.0 <= (percentile(sample.waits, 0.5) or 0) <= 2.0 and 0.2 <= (percentile(sample.runs, 0.95) or 0) <= 0.5


def test_hours_are_summed_up_and_old_samples_go(queue: Queue, acme: Project) -> None:
    hour = timezone.now().replace(minute=0, second=0, microsecond=0)
    for number in range(60):
        QueueSample.objects.create(
            queue=queue, project=acme, resolution="minute", at=hour - timedelta(hours=1) + timedelta(minutes=number),
            high=number, completed=2, enqueued=1, waits={"3": 2}, runs={"1": 2},
        )  # fmt: skip
    for resolution, days in (("minute", 2), ("hour", 9)):
        QueueSample.objects.create(queue=queue, project=acme, resolution=resolution, at=hour - timedelta(days=days))
    history = QueueHistory()
    history.note(hour + timedelta(seconds=6))
    whole = QueueSample.objects.get(resolution="hour", at=hour - timedelta(hours=1))
    assert (whole.high, whole.completed, whole.enqueued, whole.waits) == (59, 120, 60, {"3": 120})
    assert not QueueSample.objects.filter(at__lte=hour - timedelta(days=2)).exists()


def test_a_long_period_is_made_of_hours_and_of_the_minutes_since(queue: Queue, acme: Project) -> None:
    now = timezone.now()
    hour = now.replace(minute=0, second=0, microsecond=0)
    globex = Project.objects.create(slug="globex")
    common = {"queue": queue, "waits": {"4": 1}}
    QueueSample.objects.create(
        project=acme, resolution="hour", at=hour - timedelta(hours=3), completed=10, low=7, **common
    )
    QueueSample.objects.create(project=acme, resolution="hour", at=hour - timedelta(hours=1), completed=20, **common)
    QueueSample.objects.create(
        project=acme, resolution="minute", at=hour - timedelta(minutes=30), completed=20, **common
    )
    QueueSample.objects.create(project=acme, resolution="minute", at=hour, completed=1, dead=1, **common)
    QueueSample.objects.create(project=globex, resolution="minute", at=hour, completed=100, **common)
    steps = panel.steps(PERIODS["24h"], [acme.pk])
    assert sum(step.counts["completed"] for step in steps) == 31, "what the hour has, its minutes don't add again"
    assert max(step.waiting for step in steps) == 7
    assert panel.summary(steps)["success"] == 96.9
    assert sum(step.counts["completed"] for step in panel.steps(PERIODS["24h"], None)) == 131
    assert max(panel.depths_by_queue(PERIODS["7d"], None)[queue.pk]) == 7


def test_durations_add_up() -> None:
    assert percentile({}, 0.5) is None
    total = added([bucketed([0.001] * 90), bucketed([30.0] * 10)])
    assert (percentile(total, 0.5) or 1) <= 0.01 and 20 <= (percentile(total, 0.95) or 0) <= 50
    assert percentile(bucketed([10.0**9]), 1.0) == 500_000
