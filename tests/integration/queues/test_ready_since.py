"""Since when the oldest ready job is ready: exact, and with as many queries for many jobs as for one."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from queues.models import Job, Queue
from queues.selectors.queues import ready_since
from queues.services.defaults import create_defaults
from queues.states import Stage
from quotas.models import Project

pytestmark = pytest.mark.django_db


def test_the_oldest_by_queue_without_reading_each_job() -> None:
    create_defaults()
    now = timezone.now()
    project = Project.objects.create(slug="acme")
    queue = Queue.objects.order_by("pk").first()
    assert queue is not None
    made = {"project": project, "queue": queue, "type": "http.request", "stage": Stage.READY}
    Job.objects.create(**made, created_at=now - timedelta(days=7), not_before=now - timedelta(seconds=5))
    assert ready_since(Job.objects.all()) == {queue.pk: now - timedelta(seconds=5)}, "a replay counts from its replay"
    Job.objects.bulk_create(Job(**made, created_at=now - timedelta(seconds=90 - n % 60)) for n in range(3))
    with CaptureQueriesContext(
        connection,
    ) as few:
        assert ready_since(Job.objects.all()) == {queue.pk: now - timedelta(seconds=90)}
    Job.objects.bulk_create(Job(**made, created_at=now - timedelta(seconds=30)) for _ in range(3000))
    with CaptureQueriesContext(connection) as many:
        assert ready_since(Job.objects.all()) == {queue.pk: now - timedelta(seconds=90)}
    assert len(many) == len(few)
    Job.objects.create(**made, created_at=now, not_before=now - timedelta(seconds=400))
    assert ready_since(Job.objects.all()) == {queue.pk: now - timedelta(seconds=400)}
    if connection.vendor == "sqlite":
        again = Job.objects.filter(stage=Stage.READY, queue_id=queue.pk, not_before__isnull=False).order_by(
            "not_before"
        )
        assert "job_ready_again" in again.explain()
