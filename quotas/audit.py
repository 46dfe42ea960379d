"""The audit trail of actions that change only Redis: an entry of the intent, and one of the outcome."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from quotas import events


@dataclass(slots=True)
class AuditDraft:
    """Filled in by the block: the state before and after the action."""

    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None


@contextmanager
def recorded(actor: str, verb: str, target: str, reason: str, project: str = "") -> Iterator[AuditDraft]:
    """Write the intent, run the block, write `done` with the draft's states, or `failed` if the block raised."""
    draft = AuditDraft()

    def write(phase: str, before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> None:
        events.emit(events.OperatorActed(actor, verb, target, before, after, reason, phase, project=project))

    write("intent", None, None)
    try:
        yield draft
    except Exception as error:
        write("failed", draft.before, {"error": type(error).__name__})
        raise
    write("done", draft.before, draft.after)
