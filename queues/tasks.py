"""Python functions as job types, by the decorator `@task`: their parameters are the schema of the payload."""

from __future__ import annotations

import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from queues import event_loops, registry
from queues.errors import FieldError
from queues.payloads import plain
from queues.registry import JobContext, RunResult
from queues.states import AttemptOutcome
from queues.task_errors import result_of
from quotas.engine.types import CallOutcome
from quotas.models.encrypted import CredentialUnreadable
from quotas.rest.pointers import escape
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


# The payload, by names, defaults and plain annotations of the parameters

_PLAIN: dict[Any, tuple[type, ...]] = {
    str: (str,), int: (int,), float: (int, float), bool: (bool,), list: (list,), dict: (dict,), type(None): (type(None),),
}  # fmt: skip
_WORDS = {
    str: "a string",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
    type(None): "null",
}


def _fits(value: Any, annotation: Any) -> bool:
    if annotation in (Any, inspect.Parameter.empty):
        return True
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, part) for part in typing.get_args(annotation))
    if origin is typing.Literal:
        return any(value == choice and type(value) is type(choice) for choice in typing.get_args(annotation))
    parts = typing.get_args(annotation)
    if origin is list:
        return isinstance(value, list) and (not parts or all(_fits(item, parts[0]) for item in value))
    if origin is dict:
        return isinstance(value, dict) and (not parts or all(_fits(item, parts[1]) for item in value.values()))
    allowed = _PLAIN.get(annotation)
    if allowed is None:
        return True
    return isinstance(value, allowed) and (annotation is bool or not isinstance(value, bool))


def _describe(annotation: Any) -> str:
    if annotation in _WORDS:
        return _WORDS[annotation]
    parts = typing.get_args(annotation)
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return " or ".join(_describe(part) for part in parts)
    if typing.get_origin(annotation) is typing.Literal:
        return "one of " + ", ".join(repr(part) for part in parts)
    return str(annotation)


class PayloadSchema:
    """What a task function takes: its parameters behind the first, which is the job itself."""

    def __init__(self, function: Callable[..., Any]) -> None:
        parameters = list(inspect.signature(function).parameters.values())
        if not parameters or parameters[0].kind not in (
            parameters[0].POSITIONAL_ONLY,
            parameters[0].POSITIONAL_OR_KEYWORD,
        ):
            raise TypeError(f"The first parameter of the task {function.__qualname__} must be the job.")
        for parameter in parameters[1:]:
            if parameter.kind is parameter.POSITIONAL_ONLY and parameter.default is parameter.empty:
                raise TypeError(f"A payload is given by name: {parameter.name} of {function.__qualname__} takes none.")
        self._job = parameters[0].name
        hints = typing.get_type_hints(function)
        self.open = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
        self.annotations = {
            parameter.name: hints.get(parameter.name, Any)
            for parameter in parameters[1:]
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        }
        self.required = {
            parameter.name
            for parameter in parameters[1:]
            if parameter.name in self.annotations and parameter.default is parameter.empty
        }

    def errors(self, payload: Mapping[str, Any], pointer: str) -> list[FieldError]:
        """What is wrong with `payload`; empty if it fits."""
        found = [
            FieldError(f"{pointer}/{name}", "This field is required.") for name in sorted(self.required - set(payload))
        ]
        for name, value in payload.items():
            if name not in self.annotations:
                if not self.open or name == self._job:
                    found.append(FieldError(f"{pointer}/{escape(name)}", "Unknown field."))
            elif not _fits(value, self.annotations[name]):
                found.append(FieldError(f"{pointer}/{name}", f"Must be {_describe(self.annotations[name])}."))
        return found
