"""What every kind of configuration knows: its record, its place in SQL, what it refers to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar

from controlplane.config.records import Item, Record

Reference = tuple[str, str, str]
"""(section, name, member that says so)."""


class Kind(ABC):
    """One section of the file. Items are identified by `key`; writes come in the order of `kinds.ALL`."""

    section: ClassVar[str]
    word: ClassVar[str]
    record: ClassVar[Record]

    def key(self, item: Item) -> str:
        return item["name"]

    def references(self, item: Item) -> Iterable[Reference]:
        """What must exist, in the file or in SQL."""
        return ()

    def problem(self, item: Item, before: Item | None) -> tuple[str, str] | None:
        """(member, message) of something that only shows together with what is stored."""
        return None

    @abstractmethod
    def stored(self) -> dict[str, Item]:
        """All items in SQL, by key."""

    @abstractmethod
    def save(self, item: Item, before: Item | None) -> None:
        """Write one item; `before` is what was stored, None for a new one."""

    @abstractmethod
    def remove(self, item: Item) -> None: ...

    def same(self, item: Item, before: Item) -> bool:
        return item == before

    def shown(self, item: Item) -> Item:
        """As it is exported."""
        return self.record.show(item)

    def differences(self, item: Item, before: Item) -> dict[str, tuple[Any, Any]]:
        """Member → (before, after), as they are shown."""
        return {
            member.name: (member.show(before[member.name]), member.show(item[member.name]))
            for member in self.record.members
            if before[member.name] != item[member.name]
        }
