"""Wakes the dispatcher when an operator changes what jobs wait for: configuration, counters, pauses, accounts."""

from __future__ import annotations

from django.db import transaction

from queues.wakeups import notify
from quotas import events

CHANGING = (
    "limits.", "limit.", "account.", "pool.", "policy.", "config.", "queue.", "project.", "override.", "tier.",
    "network.", "provider.", "cost_rule.", "retry_policy.",
)  # fmt: skip


def wake(event: events.OperatorActed) -> None:
    """Wake the dispatcher at once, since blocks that it remembers may be over."""
    if event.verb.startswith(CHANGING) and event.phase == "done":
        transaction.on_commit(lambda: notify(unblock=True))


def connect() -> None:
    events.subscribe(events.OperatorActed, wake)
