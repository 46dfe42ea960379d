"""Writes operators' actions into the audit log, in the transaction of the action."""

from __future__ import annotations

from controlplane.models import AuditEntry
from quotas import events


def record(event: events.OperatorActed) -> None:
    """Write one row. If it can't be written, the action fails and is rolled back."""
    AuditEntry.objects.create(
        actor=event.actor[:200],
        verb=event.verb if event.phase == "done" else f"{event.verb}.{event.phase}",
        target=event.target[:300],
        project=event.project,
        before=dict(event.before) if event.before is not None else None,
        after=dict(event.after) if event.after is not None else None,
        reason=event.reason[:500],
    )


def connect() -> None:
    events.subscribe(events.OperatorActed, record)
