"""What an `apply` changes, in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

SIGNS = {"create": "+", "change": "~", "remove": "-"}


@dataclass(frozen=True)
class Change:
    """One item that is new, different or gone. `members`: member → (before, after), as they are written in YAML."""

    verb: Literal["create", "change", "remove"]
    word: str
    key: str
    members: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    ends: tuple[str, ...] = ()
    """The uses that are ended with it."""

    def __str__(self) -> str:
        head = f"{SIGNS[self.verb]} {self.word} {self.key}"
        if self.verb == "remove":
            return "\n".join([head, *(f"    {line}" for line in self.ends)])
        if self.verb == "create":
            lines = [f"{name}: {shown(after)}" for name, (_, after) in self.members.items()]
        else:
            lines = [f"{name}: {shown(before)} → {shown(after)}" for name, (before, after) in self.members.items()]
            lines += self.ends
        return "\n".join([head, *(f"    {line}" for line in lines)])


def shown(value: Any) -> str:
    """A plain value on one line, as YAML would write it in its flow style."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case dict():
            return "{" + ", ".join(f"{name}: {shown(inner)}" for name, inner in value.items()) + "}"
        case list() | tuple():
            return "[" + ", ".join(map(shown, value)) + "]"
        case _:
            return str(value)


def summary(changes: list[Change]) -> str:
    if not changes:
        return "no changes"
    counts = {verb: sum(change.verb == verb for change in changes) for verb in SIGNS}
    return f"{counts['create']} added, {counts['change']} changed, {counts['remove']} removed"
