"""Django's Tasks framework as a front of the queues."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings
from django.utils import timezone
from django_tasks import task, task_backends
from django_tasks.base import TaskResultStatus
from django_tasks.exceptions import InvalidTaskError, TaskResultDoesNotExist

from queues import backends
from queues.errors import InvalidJob
from queues.job_types.django_task import DjangoTask
from queues.models import Attempt, Job
from queues.registry import JobContext
from queues.services.defaults import create_defaults
from queues.services.submit import submit
from queues.states import Stage, Status
from quotas.models import Project

pytestmark = pytest.mark.django_db(transaction=True)
TASKS = {
    "default": {
        "BACKEND": "queues.backends.SluiceBackend",
        "QUEUES": ["default", "exports"],
        "OPTIONS": {"PROJECT": "acme"},
    }
}
ran: list[Any] = []


def add(left: int, right: int) -> int:
    """The plain function; it becomes a task below, once the settings name the back end."""
    ran.append((left, right))
    return left + right


def fail() -> None:
    raise ZeroDivisionError("no")


def context_task(context: Any, number: int) -> list[Any]:
    return [context.task_result.id, context.attempt, number]


PLAIN = add
CONTEXT_TASK = context_task


def _reset_backends() -> None:
    """The handler keeps what it read from the settings."""
    vars(task_backends).pop("settings", None)
    if any(True for _ in task_backends.all(initialized_only=True)):
        del task_backends["default"]


@pytest.fixture(autouse=True)
def tasks() -> Any:
    create_defaults()
    Project.objects.create(slug="acme")
    ran.clear()
    with override_settings(TASKS=TASKS):
        _reset_backends()
        globals()["add"], globals()["fail"] = task(PLAIN), task(FAILING)
        yield
    globals()["add"], globals()["fail"] = PLAIN, FAILING
    _reset_backends()


FAILING = fail


def run(job: Job) -> Any:
    context = JobContext(job.uid, "acme", "batch", "", {}, 1, 5, 60.0, job.uid)
    return DjangoTask(backends.Task, backends.context_of).run(context, job.payload)


def test_a_task_becomes_a_job_and_its_result_comes_back() -> None:
    result = add.enqueue(2, right=3)  # type: ignore[attr-defined]
    assert result.status == TaskResultStatus.READY
    job = Job.objects.get(uid=result.id)
    assert (job.type, job.queue.name, job.priority) == ("django.task", "batch", 5)

    done = run(job)

    assert (done.outcome, done.result, ran) == ("succeeded", 5, [(2, 3)])
    Job.objects.filter(pk=job.pk).update(status=Status.COMPLETED, stage=Stage.DONE, result=done.result)
    again = add.get_result(result.id)  # type: ignore[attr-defined]
    assert (again.status, again.return_value, again.args, again.kwargs) == (
        TaskResultStatus.SUCCESSFUL,
        5,
        [2],
        {"right": 3},
    )


def test_priority_time_and_queue_are_kept() -> None:
    later = timezone.now() + timedelta(hours=1)
    result = add.using(priority=100, run_after=later, queue_name="exports").enqueue(1, 2)  # type: ignore[attr-defined]
    job = Job.objects.get(uid=result.id)
    assert (job.priority, job.queue.name, job.stage) == (0, "exports", Stage.SCHEDULED)
    assert job.not_before == later


def test_a_failing_task_is_a_failed_attempt_of_the_category_code() -> None:
    result = fail.enqueue()  # type: ignore[attr-defined]
    done = run(Job.objects.get(uid=result.id))
    assert (done.outcome, done.category) == ("failed", "code")
    assert "ZeroDivisionError" in done.traceback


def test_a_task_that_takes_a_context_gets_the_frameworks_own() -> None:
    globals()["context_task"] = task(takes_context=True)(CONTEXT_TASK)
    result = context_task.enqueue(3)  # type: ignore[attr-defined]
    job = Job.objects.get(uid=result.id)
    Attempt.objects.create(job=job, number=1, delivery=1, outcome="failed", worker="w", ended_at=timezone.now())
    Job.objects.filter(pk=job.pk).update(status=Status.EXECUTING, stage=Stage.RUNNING, worker="w", attempts_made=2)
    done = run(job)
    assert (done.outcome, done.result) == ("succeeded", [result.id, 2, 3]), done.error
    assert context_task.get_result(result.id).attempts == 2  # type: ignore[attr-defined]
    globals()["context_task"] = CONTEXT_TASK


@pytest.mark.parametrize(
    "path", ["os.system", "tests.integration.queues.test_django_tasks.run", "nowhere.at.all", 7, ""]
)
def test_nothing_but_a_task_can_be_named(path: Any) -> None:
    with pytest.raises(InvalidJob) as caught:
        submit("django.task", project="acme", payload={"path": path, "args": [], "kwargs": {}})
    assert caught.value.errors[0].pointer == "/payload/path"
    assert not Job.objects.exists()


def test_unknown_queues_and_results_are_errors() -> None:
    with pytest.raises(InvalidTaskError):
        add.using(queue_name="nope")  # type: ignore[attr-defined]
    with pytest.raises(TaskResultDoesNotExist):
        add.get_result("nope")  # type: ignore[attr-defined]


def test_a_back_end_without_a_project_is_a_mistake_of_the_settings() -> None:
    with pytest.raises(ImproperlyConfigured, match="PROJECT"):
        backends.SluiceBackend("default", {})


@pytest.mark.parametrize(("django", "ours"), [(100, 0), (20, 4), (0, 5), (-25, 6), (-100, 9)])
def test_priorities(django: int, ours: int) -> None:
    assert backends.priority_of(django) == ours
