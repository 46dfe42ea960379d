"""How often whom was refused: counted in the process that refused, so that a denied check writes nothing.

Counted is each enforced policy that refused, and each shadow policy that would have. Dry runs are not counted,
and jobs are not refused: they wait.
"""

from __future__ import annotations

from quotas import events
from quotas.engine.keys import SHOWN
from quotas.runtime.counters import BufferedCounter

counter = BufferedCounter("denied")
Subject = tuple[str, str, str]
"""(policy's name, project or empty, key as far as it is shown; empty for those that were too many to keep apart)."""


def note(event: events.LimitsChecked) -> None:
    """A subscriber, on the hot path."""
    for decision in event.decisions:
        for state in decision.limits:
            if not state.allowed and (state.mode == "shadow" or not decision.allowed):
                counter.add(((state.policy, state.partition, state.key[:SHOWN]),))


def connect() -> None:
    events.subscribe(events.LimitsChecked, note)
