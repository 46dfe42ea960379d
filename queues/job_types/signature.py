"""A task's payload schema, from its signature: names, defaults and plain annotations."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from queues.errors import FieldError
from quotas.rest.pointers import escape

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
