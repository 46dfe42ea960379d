"""A section of the configuration: its record, its rows in SQL, what it refers to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar

from django.db.models import Model

from controlplane.config.records import Item, Record
from quotas.services import in_use
from quotas.services.in_use import Use

Reference = tuple[str, str, str]
"""(section, name, member that says so)."""


class Kind(ABC):
    """One section of the file. Items are identified by `key`; writes come in the order of `kinds.ALL`."""

    section: ClassVar[str]
    word: ClassVar[str]
    record: ClassVar[Record]

    def key(self, item: Item) -> str:
        return str(item["name"])

    def references(self, item: Item) -> Iterable[Reference]:
        """What must exist, in the file or in SQL."""
        return ()

    def problem(self, item: Item, before: Item | None) -> tuple[str, str] | None:
        """(member, message) of mistakes that only a comparison with stored rows shows."""
        return None

    @abstractmethod
    def stored(self) -> dict[str, Item]:
        """All items in SQL, by key."""

    @abstractmethod
    def save(self, item: Item, before: Item | None) -> None:
        """Write one item; `before` is what was stored, None for a new one."""

    @abstractmethod
    def row(self, item: Item) -> Model | None:
        """The row of an item that is stored."""

    def remove(self, item: Item) -> None:
        row = self.row(item)
        if row is not None:
            row.delete()

    def uses(self, item: Item) -> list[Use]:
        """What uses an item that is to be removed, beside references in the file."""
        row = self.row(item)
        return in_use.uses(row) if row is not None else []

    def loses(self, item: Item, before: Item) -> list[Use]:
        """What uses something that a change removes from an item that stays."""
        return []

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
