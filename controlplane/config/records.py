"""Records of a configuration file: their members, in the order in which they are written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from controlplane.config.document import Mistake, Node, Reader
from quotas import durations

Item = dict[str, Any]
"""A record as plain values with all defaults filled in: what is compared, stored and shown."""


class _Required:
    def __repr__(self) -> str:
        return "REQUIRED"


REQUIRED: Any = _Required()


@dataclass(frozen=True)
class Member:
    """One member: its reader, and its default (a value, or a callable that creates it)."""

    name: str
    read: Reader[Any]
    default: Any = REQUIRED
    show: Callable[[Any], Any] = lambda value: value

    def filled(self) -> Any:
        return self.default() if callable(self.default) else self.default


def duration(name: str, read: Reader[Any], default: Any = REQUIRED) -> Member:
    """A member in seconds that is written as `30s`."""
    return Member(name, read, default, lambda value: None if value is None else durations.render(value))


@dataclass(frozen=True)
class Record:
    """A mapping with known members only. `check` checks how they fit together."""

    members: tuple[Member, ...]
    check: Callable[[Node, Item], None] | None = None

    def read(self, node: Node) -> Item:
        """All mistakes of one record are reported together, as a `ConfigMistakes`."""
        if not isinstance(node.data, dict):
            raise node.wrong("must be a mapping")
        mistakes: list[Mistake] = []
        known = {member.name for member in self.members}
        for name, inner in node.data.items():
            if name not in known:
                mistakes.append(inner.unknown(name, known))
        item: Item = {}
        for member in self.members:
            given = node.data.get(member.name)
            try:
                if given is not None:
                    item[member.name] = member.read(given)
                elif member.default is REQUIRED:
                    mistakes.append(node.wrong(f"needs {member.name!r}"))
                else:
                    item[member.name] = member.filled()
            except Mistake as mistake:
                mistakes.append(mistake)
            except Mistakes as several:
                mistakes += several.mistakes
        if not mistakes and self.check is not None:
            try:
                self.check(node, item)
            except Mistake as mistake:
                mistakes.append(mistake)
            except Mistakes as several:
                mistakes += several.mistakes
        if mistakes:
            raise Mistakes(mistakes)
        return item

    def show(self, item: Item) -> Item:
        """The record as it is written: without what is left to defaults."""
        return {
            member.name: member.show(item[member.name])
            for member in self.members
            if member.default is REQUIRED or item[member.name] != member.filled()
        }

    def listed(self, key: str) -> Reader[list[Item]]:
        """A reader for a list of such records, in which `key` names each once."""

        def read(node: Node) -> list[Item]:
            return read_list(self, node, lambda item: item[key])[0]

        return read


class Mistakes(Exception):
    """Several mistakes at once, before they become a `ConfigInvalid`."""

    def __init__(self, mistakes: list[Mistake]) -> None:
        self.mistakes = mistakes
        super().__init__("; ".join(map(str, mistakes)))


def read_list(record: Record, node: Node, key: Callable[[Item], Any]) -> tuple[list[Item], list[Node]]:
    """The records of a list with their nodes. Raises `Mistakes`."""
    if not isinstance(node.data, list):
        raise node.wrong("must be a list")
    items, nodes, mistakes, seen = [], [], [], set()
    for inner in node.data:
        try:
            item = record.read(inner)
        except Mistake as mistake:
            mistakes.append(mistake)
            continue
        except Mistakes as several:
            mistakes += several.mistakes
            continue
        name = key(item)
        if name is not None and name in seen:
            mistakes.append(inner.wrong(f"{name!r} stands there twice"))
        seen.add(name)
        items.append(item)
        nodes.append(inner)
    if mistakes:
        raise Mistakes(mistakes)
    return items, nodes
