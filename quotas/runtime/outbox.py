"""Rows that must reach a receiver outside: written with what they are about, then sent until they are delivered.

    due -> claimed (`due_at` moves on) -> sent -> delivered
                                               -> failed: due again after the next of `WAITS`; given up after the last

Sending is safe in any number of processes. A process that dies with a claimed row delays it by `CLAIM` and no more.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import Any, ClassVar, Generic, TypeVar

from django.db.models import Model, QuerySet

from quotas import clock

WAITS = (5, 30, 120, 600, 1800, 3600, 7200, 14400, 21600, 28800)
"""Seconds between two tries; about a day in all."""
CLAIM = timedelta(seconds=60)
"""How long a claimed row is not due for others."""

Row = TypeVar("Row", bound=Model)


class Outbox(Generic[Row]):
    """The rows of one model with the columns `due_at` (null: over), `tries`, `delivered_at` and `error`.

    A subclass says how a row is delivered and, where rows share a sender, what they share it by.
    """

    model: type[Row]
    cleared: ClassVar[Mapping[str, object]] = {}
    """What to set on a row that is delivered or given up, such as content that is no longer needed."""

    def deliver(self, row: Row) -> str:
        """Try once. What went wrong, in a few words; empty where the row is delivered."""
        raise NotImplementedError

    def receiver(self, row: Row) -> str:
        """Where the row goes, equal for all rows that wait for the same receiver."""
        raise NotImplementedError

    def tenant(self, row: Row) -> int | None:
        """On whose behalf the row is sent; None where the sender is not shared."""
        return None

    def rows(self, receivers: Collection[str], tenants: Collection[int]) -> QuerySet[Row, Row]:
        """All rows but those to `receivers` and those of `tenants`."""
        raise NotImplementedError

    def given_up(self, row: Row, error: str) -> None:
        """Called after the last try of a row."""

    def due(self, count: int, receivers: Collection[str] = (), tenants: Collection[int] = ()) -> list[Row]:
        """Up to `count` rows that are due, the oldest first; none to those receivers, none of those tenants."""
        return list(self.rows(receivers, tenants).filter(due_at__lte=clock.now()).order_by("due_at", "pk")[:count])

    def claim(self, row: Any) -> bool:
        """Reserve the row for this process: the second process to try finds it no longer due."""
        rows = self.model._default_manager.filter(pk=row.pk, due_at=row.due_at)
        return bool(rows.update(due_at=clock.now() + CLAIM))

    def send(self, row: Any) -> None:
        """Deliver a claimed row, and write how that went."""
        error = self.deliver(row)
        now, tries = clock.now(), row.tries + 1
        fields: dict[str, Any]
        if not error:
            fields = {"due_at": None, "delivered_at": now, "error": "", **self.cleared}
        elif tries > len(WAITS):
            fields = {"due_at": None, "error": f"given up: {error}", **self.cleared}
            self.given_up(row, error)
        else:
            fields = {"due_at": now + timedelta(seconds=WAITS[tries - 1]), "error": error}
        self.model._default_manager.filter(pk=row.pk).update(tries=tries, **fields)

    def send_due(self, count: int = 20) -> int:
        """Send what is due, one row after the other; returns how many were tried."""
        tried = 0
        for row in self.due(count):
            if self.claim(row):
                self.send(row)
                tried += 1
        return tried
