"""Errors that end supervision."""

from __future__ import annotations

from collections.abc import Sequence


class SupervisorError(Exception):
    """The supervisor has to stop."""


class ChildGivenUp(SupervisorError):
    """A child never became ready, or a step that must succeed did not. `name` is the child, `lines` its last output."""

    def __init__(self, name: str, why: str, lines: Sequence[str]) -> None:
        super().__init__(f"{name} {why}")
        self.name = name
        self.lines = tuple(lines)


class ConditionTimeout(SupervisorError):
    """A condition was not met in time."""


class Stopped(SupervisorError):
    """A signal to stop arrived while a condition was awaited."""
