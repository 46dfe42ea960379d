"""Subjects that the next sample should look at, however many a policy has: noted by the processes that charge them.

The index of a policy names those that came last; a calendar quota must be written down for all that use it, and a
threshold told for whoever is near one. Only these two are noted, and handed on once a second.
"""

from __future__ import annotations

from quotas import events
from quotas.engine.keys import SHOWN
from quotas.runtime.counters import BufferedCounter

counter = BufferedCounter("active-subjects", most=50_000)
NEAR = 0.4
"""Share of a limit that is left when its subject begins to be noted: the first threshold is at 60 % by default."""


def note(event: events.LimitsChecked) -> None:
    """A subscriber, on the hot path."""
    subjects = []
    for decision in event.decisions:
        if not decision.allowed:
            continue
        for state in decision.limits:
            left = state.remaining
            if left is None or len(state.key) >= SHOWN:
                continue  # where only the beginning of a name is kept, it names no counter
            if state.algorithm == "calendar" or left <= NEAR * (state.limit or 0):
                subjects.append((state.policy, state.partition, state.key))
    if subjects:
        counter.add(subjects)


def connect() -> None:
    events.subscribe(events.LimitsChecked, note)
