"""What operators do, told to the audit trail: as intent, then the act, then its outcome where only Redis changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from quotas import events


@dataclass(slots=True)
class Act:
    """Filled in by the block: what was, and what is now."""

    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None


@contextmanager
def acting(actor: str, verb: str, target: str, reason: str, project: str = "") -> Iterator[Act]:
    """Write the intent, run the block, write `done` with what the block has told, or `failed` where it raised."""
    act = Act()

    def tell(phase: str, before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> None:
        events.emit(events.OperatorActed(actor, verb, target, before, after, reason, phase, project=project))

    tell("intent", None, None)
    try:
        yield act
    except Exception as error:
        tell("failed", act.before, {"error": type(error).__name__})
        raise
    tell("done", act.before, act.after)
