"""Counts checks in the process, and adds the counts up in Redis once a second: a check costs no further round trip."""

from __future__ import annotations

from bisect import bisect_left

from django.conf import settings

from controlplane.observability.shared_sums import SharedSums
from quotas import events
from quotas.engine.types import LimitState

BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
_BOUND_NAMES = [("seconds", place) for place in range(len(BOUNDS) + 1)]
_SECONDS = ("seconds", "sum")


def key() -> str:
    return f"{settings.REDIS_PREFIX}:metrics:checks"


class CheckCounts(SharedSums):
    """Field names in Redis are JSON lists: [family, labels.., part]."""

    def record(self, event: events.LimitsChecked) -> None:
        """A subscriber: notes each policy's part in each decision, and the time that the call took."""
        names: list[tuple[str | int, ...]] = []
        for decision in event.decisions:
            for state in decision.limits:
                if decision.allowed:
                    outcome = _outcome(state, decision.bypassed)
                elif not state.allowed and state.mode != "shadow":
                    outcome = "denied"
                else:
                    continue  # another policy refused: nothing was charged here
                names.append(("total", state.policy, state.scope, outcome))
        names.append(_BOUND_NAMES[bisect_left(BOUNDS, event.seconds)])
        self.add(names, {_SECONDS: event.seconds})


def _outcome(state: LimitState, bypassed: bool) -> str:
    """A policy's part in a check that was allowed."""
    if state.allowed:
        return "allowed"
    return "bypassed" if bypassed and state.mode != "shadow" else "shadow_denied"


counts = CheckCounts("check-counts", key)


def connect() -> None:
    events.subscribe(events.LimitsChecked, counts.record)
