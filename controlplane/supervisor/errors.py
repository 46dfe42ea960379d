"""How supervision ends before its time."""

from __future__ import annotations

from collections.abc import Sequence


class SupervisorError(Exception):
    """The supervised processes can't go on."""


class ChildGivenUp(SupervisorError):
    """A child never became ready, or a step that must succeed did not. `name` is the child, `lines` its last output."""

    def __init__(self, name: str, why: str, lines: Sequence[str]) -> None:
        super().__init__(f"{name} {why}")
        self.name = name
        self.lines = tuple(lines)


class ConditionTimeout(SupervisorError):
    """What was waited for did not come about in time."""


class Stopped(SupervisorError):
    """A signal asked for the end while something was waited for."""
