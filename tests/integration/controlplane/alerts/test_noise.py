"""A limit that does its work is no alert; a queue whose jobs fail is one, with figures that stay current."""

from __future__ import annotations

import pytest

from controlplane.alerts.subscriber import trouble_of
from controlplane.alerts.watch import Watch
from controlplane.models import Alert
from queues.models import Job, Queue
from queues.services.defaults import create_defaults
from queues.states import Stage, Status
from quotas import clock, events
from quotas.models import Policy, Project, ThresholdMark
from quotas.snapshot import resolve

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("scope", "warn_at", "alerted"),
    [
        ("user", None, False), ("ip", None, False), ("custom", None, False), ("endpoint", None, False),
        ("user", [0.9], True), ("project", None, True), ("global", None, True), ("queue", None, True),
    ],
)  # fmt: skip
def test_who_reaches_a_limit_is_alerted_where_a_policy_asks(
    scope: str, warn_at: list[float] | None, alerted: bool
) -> None:
    fields = {} if warn_at is None else {"warn_at": warn_at}
    policy = Policy.objects.create(
        name="one",
        scope=scope,
        algorithm="fixed_window",
        limit=20,
        window=60,
        key_name="chat",
        match="POST /v1/*",
        **fields,
    )
    resolve.clear()
    crossed = events.ThresholdCrossed("one", "ann", 0.95, 20, 20, project="acme")
    trouble = trouble_of(crossed)
    assert (trouble is not None) == alerted
    if trouble is not None:
        assert "100% used" in trouble.summary and "20 of 20" in trouble.summary and "95% threshold" in trouble.summary
    ThresholdMark.objects.create(policy=policy, project="acme", key="ann", share=0.95)
    Watch().look()
    assert Alert.objects.filter(kind="quota_threshold").exists() == alerted


def end(queue: Queue, status: Status, count: int) -> None:
    project, _ = Project.objects.get_or_create(slug="acme")
    now = clock.now()
    Job.objects.bulk_create(
        Job(project=project, queue=queue, type="t", stage=Stage.DONE, status=status, created_at=now, finished_at=now)
        for _ in range(count)
    )


def test_a_queue_whose_jobs_fail_is_one_alert_with_current_figures() -> None:
    create_defaults()
    queue = Queue.objects.get(name="batch")
    end(queue, Status.COMPLETED, 300)
    end(queue, Status.DEAD, 9)
    Watch().look()
    assert not Alert.objects.filter(kind="job_failure_rate").exists(), "3 % is no fault of the queue"
    end(queue, Status.DEAD, 100)
    Watch().look()
    alert = Alert.objects.get(kind="job_failure_rate")
    assert (alert.subject, alert.severity) == ("batch", "warning") and "109 of the last 409" in alert.summary
    end(queue, Status.DEAD, 50)
    Watch().look()
    alert.refresh_from_db()
    assert "159 of the last 459" in alert.summary and alert.count == 1
