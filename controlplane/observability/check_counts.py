"""Results and durations of checks by policy: counted in each process, added up in Redis for the metrics."""

from __future__ import annotations

from bisect import bisect_left

from quotas import events
from quotas.engine.types import LimitState
from quotas.runtime.counters import BufferedCounter, Field

BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
"""Upper bounds of the histogram's buckets, in seconds."""
_BUCKETS: list[Field] = [("seconds", str(place)) for place in range(len(BOUNDS) + 1)]
_SECONDS: Field = ("seconds", "sum")

counter = BufferedCounter("checks", most=100_000, life=None)
"""("total", policy, scope, outcome); ("seconds", bucket) and ("seconds", "sum")."""


def record(event: events.LimitsChecked) -> None:
    """A subscriber: counts each policy's result in each decision, and the duration of the check."""
    amounts: list[tuple[Field, float]] = [
        (_BUCKETS[bisect_left(BOUNDS, event.seconds)], 1), (_SECONDS, event.seconds)
    ]  # fmt: skip
    for decision in event.decisions:
        for state in decision.limits:
            if decision.allowed:
                outcome = _outcome(state, decision.bypassed)
            elif not state.allowed and state.mode != "shadow":
                outcome = "denied"
            else:
                continue  # another policy refused: nothing was charged here
            amounts.append((("total", state.policy, state.scope, outcome), 1))
    counter.add_each(amounts)


def _outcome(state: LimitState, bypassed: bool) -> str:
    """A policy's result in an allowed check."""
    if state.allowed:
        return "allowed"
    return "bypassed" if bypassed and state.mode != "shadow" else "shadow_denied"


def connect() -> None:
    events.subscribe(events.LimitsChecked, record)
