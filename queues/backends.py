"""A back end of Django's Tasks framework: `TASKS = {"default": {"BACKEND": "queues.backends.SluiceBackend", ...}}`.

Works with `django.tasks` (Django 6) and with the `django-tasks` package before it. OPTIONS: `PROJECT`, the slug on
whose behalf tasks run (needed), and `QUEUE_NAMES`, which of our queues a task's `queue_name` means (by default the
queue of the same name, and `batch` for `default`).
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from queues import registry
from queues.job_types.django_task import NAME, DjangoTask
from queues.models import Job
from queues.services.submit import submit
from queues.states import AttemptOutcome, Status

_ROOT = "django.tasks" if find_spec("django.tasks") else "django_tasks"
_base = import_module(f"{_ROOT}.base")
_Backend: Any = import_module(f"{_ROOT}.backends.base").BaseTaskBackend
Task: Any = _base.Task
TaskError: Any = _base.TaskError
TaskResult: Any = _base.TaskResult
TaskResultStatus: Any = _base.TaskResultStatus
TaskResultDoesNotExist: Any = import_module(f"{_ROOT}.exceptions").TaskResultDoesNotExist

TaskContext: Any = getattr(_base, "TaskContext", None)


def context_of(task: Any, job: Any) -> Any:
    """What a task that takes a context gets: the framework's own, with the task's result as it is by now."""
    return TaskContext(task_result=_result_of(Job.objects.get(uid=job.id), task, task.backend))


registry.register(DjangoTask(Task, context_of))

_STATUSES = {
    Status.COMPLETED: TaskResultStatus.SUCCESSFUL,
    Status.DEAD: TaskResultStatus.FAILED,
    Status.CANCELLED: TaskResultStatus.FAILED,
    Status.EXECUTING: TaskResultStatus.RUNNING,
}


def priority_of(django_priority: int) -> int:
    """Django's −100 to 100 (100 first, 0 by default) as ours: 9 to 0 (0 first, 5 by default)."""
    if django_priority >= 0:
        return 5 - round(django_priority / 20)
    return 5 + round(-django_priority / 25)


class SluiceBackend(_Backend):
    """Tasks become jobs of the type `django.task`, under all limits of their project."""

    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    def __init__(self, alias: str, params: dict[str, Any]) -> None:
        super().__init__(alias, params)
        if "PROJECT" not in self.options:
            raise ImproperlyConfigured(f"TASKS[{alias!r}] needs OPTIONS['PROJECT'], the slug of a project.")
        self.project: str = self.options["PROJECT"]
        self.queue_names: dict[str, str] = {"default": "batch", **self.options.get("QUEUE_NAMES", {})}

    def enqueue(self, task: Any, args: Any, kwargs: Any) -> Any:
        """Submit the task as a job; raises what `queues.submit` raises (a full queue, an unknown project)."""
        self.validate_task(task)
        job = submit(
            NAME,
            project=self.project,
            queue=self.queue_names.get(task.queue_name, task.queue_name),
            priority=priority_of(task.priority),
            run_at=task.run_after.isoformat() if task.run_after else None,
            payload={"path": task.module_path, "args": list(args), "kwargs": dict(kwargs)},
        )
        return _result_of(job, task, self.alias)

    def get_result(self, result_id: str) -> Any:
        """The result by the job's id; raises `TaskResultDoesNotExist`."""
        job = Job.objects.filter(uid=result_id, type=NAME, project__slug=self.project).first()
        if job is None:
            raise TaskResultDoesNotExist(result_id)
        return _result_of(job, import_string(job.payload["path"]), self.alias)


def _result_of(job: Job, task: Any, alias: str) -> Any:
    """The framework's view of a job."""
    attempts = list(job.attempts.all())
    result: Any = TaskResult(
        task=task,
        id=job.uid,
        status=_STATUSES.get(Status(job.status), TaskResultStatus.READY),
        enqueued_at=job.created_at,
        started_at=job.first_started_at,
        last_attempted_at=job.started_at,
        finished_at=job.finished_at,
        args=job.payload["args"],
        kwargs=job.payload["kwargs"],
        backend=alias,
        errors=[
            TaskError(
                exception_class_path=_exception_path(attempt.traceback),
                traceback=attempt.traceback or attempt.error,
            )
            for attempt in attempts
            if attempt.outcome in (AttemptOutcome.FAILED, AttemptOutcome.LOST)
        ],
        worker_ids=[
            *(attempt.worker for attempt in attempts),
            *([job.worker] if job.status == Status.EXECUTING else []),
        ],
    )
    if job.status == Status.COMPLETED:
        object.__setattr__(result, "_return_value", job.result)
    return result


def _exception_path(trace: str) -> str:
    """The class that the last line of a traceback names; `Exception` where it names none that can be imported."""
    name = trace.strip().rpartition("\n")[2].partition(":")[0].strip() if trace else ""
    path = name if "." in name else f"builtins.{name}"
    try:
        found = import_string(path)
    except ImportError:
        return "builtins.Exception"
    return path if isinstance(found, type) and issubclass(found, BaseException) else "builtins.Exception"
