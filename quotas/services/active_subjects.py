"""Subjects that were charged since the last sample, so that the next one reads them, however many a policy has.

The index of a policy names only the most recent subjects. Calendar quotas must be stored for all subjects, and
thresholds reported for all that are near one. Only these two kinds are counted, and flushed once a second.
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
