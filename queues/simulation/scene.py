"""What a simulation begins with, and what it finds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from queues.config import ProjectSpec
from queues.simulation.accounts import SimulatedPool
from queues.simulation.counters import Counter
from queues.simulation.groups import Running, SimulatedJob
from queues.simulation.waits import Cause


@dataclass(slots=True)
class Scene:
    """All that a simulation begins with. It changes the counters and pools."""

    now: float
    jobs: list[SimulatedJob]
    running: list[Running] = field(default_factory=list)
    counters: Mapping[str, Counter] = field(default_factory=dict)
    pools: Mapping[str, SimulatedPool] = field(default_factory=dict)
    slots: Mapping[str, int] = field(default_factory=dict)
    """Of the live workers, by lane."""
    concurrency: Mapping[int, tuple[str, int | None]] = field(default_factory=dict)
    """Name and concurrency of each queue."""
    projects: Mapping[int, ProjectSpec] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a simulation found of the jobs that the forecast is about."""

    starts_at: float | None
    """Start of the first of those that wait; None if none starts."""
    done_at: float | None
    """End of the last one; None if one never ends."""
    waits: Mapping[Cause, float]
    """Seconds of waiting of all of them, by cause."""
    never: Mapping[Cause, int]
    """Those that never start, by what they wait for."""


def shares(outcome: Outcome) -> Iterable[tuple[Cause, float]]:
    """What bounds the jobs, with the share of their waiting time (0 to 1), the largest first. Where some never start, of
    those jobs instead."""
    parts: Mapping[Cause, float] = outcome.never if outcome.done_at is None and outcome.never else outcome.waits
    whole = sum(parts.values())
    found = [(cause, value / whole) for cause, value in parts.items() if value > 0 and cause.kind != "turn"]
    return sorted(found, key=lambda item: -item[1])
