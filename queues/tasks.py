"""Python functions as job types, by the decorator `@task`."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

from queues import event_loops, registry
from queues.errors import FieldError
from queues.job_types.signature import PayloadSchema
from queues.payloads import plain
from queues.registry import JobContext, RunResult
from queues.states import AttemptOutcome
from queues.task_errors import result_of
from quotas.engine.types import CallOutcome
from quotas.models.encrypted import CredentialUnreadable
from quotas.upstream.endpoint import AccountEndpoint


class Task(registry.JobType):
    """A registered function. Calling it runs it at once; `submit` makes a job of it."""

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str,
        queue: str | None,
        pool: str | None,
        cost: Callable[..., Any] | Mapping[str, int] | int | None,
        delivery: str,
        redact: tuple[str, ...],
        settle: str | None,
    ) -> None:
        self.function = function
        self.name = name
        self.queue = queue
        self.delivery = delivery
        self.redact = redact
        self.settle = settle
        self._pool = pool
        self._cost = cost
        self.schema = PayloadSchema(function)
        self.__doc__ = function.__doc__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def validate(self, payload: Mapping[str, Any], pointer: str) -> list[FieldError]:
        return self.schema.errors(payload, pointer)

    def pool(self, payload: Mapping[str, Any]) -> str | None:
        return self._pool

    def cost(self, payload: Mapping[str, Any]) -> Mapping[str, int]:
        cost = self._cost(**payload) if callable(self._cost) else self._cost
        if cost is None:
            return {}
        if isinstance(cost, Mapping):
            return {unit: math.ceil(amount) for unit, amount in cost.items()}
        return {"tokens": math.ceil(cost)}

    def run(self, job: JobContext, payload: Mapping[str, Any]) -> RunResult:
        try:
            value = self.function(job, **payload)
            if inspect.isawaitable(value):
                value = event_loops.run(_await(value))
            return self._returned(value, job)
        except CredentialUnreadable:
            raise
        except Exception as error:  # noqa: BLE001 - a task may raise anything: it fails the attempt
            return result_of(error, pooled=job.lease is not None, actual=job.actual)

    def is_async(self, payload: Mapping[str, Any]) -> bool:
        return inspect.iscoroutinefunction(self.function)

    async def run_async(self, job: JobContext, payload: Mapping[str, Any]) -> RunResult:
        try:
            return self._returned(await self.function(job, **payload), job)
        except CredentialUnreadable:
            raise
        except Exception as error:  # noqa: BLE001 - a task may raise anything: it fails the attempt
            return result_of(error, pooled=job.lease is not None, actual=job.actual)

    def _returned(self, value: Any, job: JobContext) -> RunResult:
        result = _without_secrets(plain(value), job.lease)
        return RunResult(
            AttemptOutcome.SUCCEEDED,
            result=result,
            upstream=CallOutcome("ok") if job.lease else None,
            actual=job.actual,
        )

    def submit(self, *, project: str, priority: str | int = "normal", queue: str | None = None, **payload: Any) -> Any:
        """Make a job of this task; the payload's members are the function's arguments. Returns the `Job`.

        Raises `InvalidJob`, `QueueFull` and the other errors of `queues.submit`.
        """
        from queues import submit

        return submit(self.name, project=project, priority=priority, queue=queue, payload=payload)


def _without_secrets(result: Any, lease: AccountEndpoint | None) -> Any:
    """The result without the account's credential, in case the provider has echoed it."""
    return lease.without_credential(result) if lease is not None else result


async def _await(value: Any) -> Any:
    return await value


def task(
    function: Callable[..., Any] | None = None,
    *,
    name: str | None = None,
    queue: str | None = None,
    pool: str | None = None,
    cost: Callable[..., Any] | Mapping[str, int] | int | None = None,
    delivery: str = "at_least_once",
    redact: tuple[str, ...] = (),
    settle: str | None = None,
) -> Any:
    """Register a function as a job type.

    Its first parameter is the job (`JobContext`); the others are the payload, checked by their annotations when a job
    is submitted. `cost` is units, a number of tokens, or a function of the payload that returns either. `redact` names
    payload members that no page shows. `settle="before_next"` writes the end of a job before another one takes its slot
    in the worker. The module must be listed in `SLUICE_TASK_MODULES`.
    """

    def wrap(inner: Callable[..., Any]) -> Task:
        made = Task(
            inner,
            name=name or f"{inner.__module__}.{inner.__qualname__}",
            queue=queue,
            pool=pool,
            cost=cost,
            delivery=delivery,
            redact=redact,
            settle=settle,
        )
        registry.register(made)
        return made

    return wrap(function) if function is not None else wrap
