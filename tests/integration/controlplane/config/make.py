"""Rows of the queues' app that the tests beside need."""

from django.utils import timezone

from queues.models import Job, Queue
from queues.services.defaults import create_defaults
from quotas.models import Project


def default_queues() -> None:
    create_defaults()


def job_of(project: Project) -> Job:
    queue, _ = Queue.objects.get_or_create(name="batch")
    return Job.objects.create(project=project, queue=queue, type="http.request", created_at=timezone.now())
