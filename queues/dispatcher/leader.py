"""Which dispatcher leads: a row in SQL with a fencing token and the end of the leader's term."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.db import DatabaseError, connection, transaction
from django.db.models import F

from queues.lifecycle.sql import written
from queues.models import Leadership
from quotas import clock, events

ROLE = "dispatcher"
TERM = timedelta(seconds=5)
"""How long a leader is one without renewing; a standby takes over after that."""


def _fence(until: str, now: str) -> str:
    return (
        f'UPDATE "queues_leadership" SET "until" = {until} WHERE "until" > {now}'  # noqa: S608
        ' AND "role" = %s AND "holder" = %s AND "token" = %s'
    )


_MOMENT = "coalesce(%s::timestamptz, clock_timestamp())"
_FENCE = {
    "postgresql": _fence(f"{_MOMENT} + interval '{TERM.total_seconds()} seconds'", _MOMENT),
    "sqlite": _fence("%s", "%s"),
}
"""Composed once: it is part of each release."""


class LeadershipLost(Exception):
    """Another dispatcher leads now, so nothing of this cycle may be written."""


class Leader:
    """This process's claim to lead."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.token: int | None = None
        self.vacant_since: datetime | None = None
        """When the leader before this one renewed its term for the last time or resigned; None: there was none."""

    def renew_or_take_over(self) -> bool:
        """Renew the term, or take over if no dispatcher leads. Returns whether this process leads."""
        now = clock.now()
        rows = Leadership.objects.filter(role=ROLE)
        if self.token is not None:
            if rows.filter(holder=self.name, token=self.token).update(until=now + TERM):
                return True
            self.token = None
        Leadership.objects.get_or_create(role=ROLE, defaults={"until": now - TERM})
        with transaction.atomic():
            row = rows.filter(until__lt=now).select_for_update(skip_locked=_skips()).first()
            if row is None:
                return False
            self.vacant_since = None if not row.token else row.until if not row.holder else row.until - TERM
            rows.update(holder=self.name, token=F("token") + 1, until=now + TERM)
            self.token = row.token + 1
        events.emit(events.LeaderChanged(holder=self.name, token=self.token))
        return True

    def fence(self) -> None:
        """Inside a transaction: renew the term, which locks the row, so that no other dispatcher takes over before the commit. Raises
        `LeadershipLost`; this process has to take over again then, even where its own term ended and no other dispatcher leads."""
        moment: Any = clock.stamp()
        values = [moment, moment] if connection.vendor == "postgresql" else [written(moment + TERM), written(moment)]
        with connection.cursor() as cursor:
            cursor.execute(_FENCE[connection.vendor], [*values, ROLE, self.name, self.token or 0])
            renewed = cursor.rowcount
        if not renewed:
            self.token = None
            raise LeadershipLost()

    def resign(self) -> None:
        """Let a standby take over at once."""
        if self.token is None:
            return
        try:
            Leadership.objects.filter(role=ROLE, holder=self.name, token=self.token).update(
                until=clock.now(), holder=""
            )
        except DatabaseError:
            return  # the term ends by itself
        self.token = None


def _skips() -> bool:
    return connection.features.has_select_for_update_skip_locked
