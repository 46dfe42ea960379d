"""`django.task`: a function of Django's Tasks framework. Registered by the back end that submits it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from django.utils.module_loading import import_string

from queues import event_loops
from queues.errors import FieldError
from queues.payloads import plain
from queues.registry import JobContext, JobType, RunResult
from queues.states import AttemptOutcome
from queues.task_errors import result_of

NAME = "django.task"


class DjangoTask(JobType):
    """Payload: path (of a task object), args, kwargs. Nothing but a task object can be named."""

    name = NAME
    queue = "batch"

    def __init__(self, kind: type, context_of: Callable[[Any, JobContext], Any]) -> None:
        self._kind = kind
        self._context_of = context_of

    def validate(self, payload: Mapping[str, Any], pointer: str) -> list[FieldError]:
        errors = [
            FieldError(f"{pointer}/{name}", "Unknown field.")
            for name in payload
            if name not in ("path", "args", "kwargs")
        ]
        if not isinstance(payload.get("args", []), list):
            errors.append(FieldError(f"{pointer}/args", "Must be a list."))
        if not isinstance(payload.get("kwargs", {}), dict):
            errors.append(FieldError(f"{pointer}/kwargs", "Must be an object."))
        if self._find(payload.get("path")) is None:
            errors.append(FieldError(f"{pointer}/path", "Must be the path of a task."))
        return errors

    def cost(self, payload: Mapping[str, Any]) -> Mapping[str, int]:
        return {"requests": 1}

    def run(self, job: JobContext, payload: Mapping[str, Any]) -> RunResult:
        task = self._find(payload["path"])
        if task is None:
            return _unknown(payload)
        try:
            arguments, keywords = self._arguments(task, job, payload)
            if inspect.iscoroutinefunction(task.func):
                value = event_loops.run(task.func(*arguments, **keywords))  # a loop of ours can be interrupted
            else:
                value = task.call(*arguments, **keywords)
            return RunResult(AttemptOutcome.SUCCEEDED, result=plain(value))
        except Exception as error:  # noqa: BLE001 - a task may raise anything: it fails the attempt
            return result_of(error, pooled=False, actual={})

    def is_async(self, payload: Mapping[str, Any]) -> bool:
        task = self._find(payload.get("path"))
        return task is not None and inspect.iscoroutinefunction(task.func)

    async def run_async(self, job: JobContext, payload: Mapping[str, Any]) -> RunResult:
        task = self._find(payload["path"])
        if task is None:
            return _unknown(payload)
        try:
            arguments, keywords = self._arguments(task, job, payload)
            return RunResult(AttemptOutcome.SUCCEEDED, result=plain(await task.func(*arguments, **keywords)))
        except Exception as error:  # noqa: BLE001 - a task may raise anything: it fails the attempt
            return result_of(error, pooled=False, actual={})

    def _arguments(self, task: Any, job: JobContext, payload: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        context = [self._context_of(task, job)] if task.takes_context else []
        return [*context, *payload.get("args", [])], payload.get("kwargs", {})

    def _find(self, path: Any) -> Any:
        if not isinstance(path, str):
            return None
        try:
            found = import_string(path)
        except (ImportError, ValueError):
            return None
        return found if isinstance(found, self._kind) else None


def _unknown(payload: Mapping[str, Any]) -> RunResult:
    error = f"There is no task {payload['path']!r} in this worker."
    return RunResult(AttemptOutcome.LOST, category="code", error=error, counted=False, returned=True)
