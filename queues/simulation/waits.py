"""What simulated jobs wait for: seconds by cause, of the jobs that a forecast is about."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import NamedTuple


class Cause(NamedTuple):
    """What a job waits for. `kind`: `policy`, `pool`, `workers`, `queue`, `paused`, `schedule`, `dependency` or `turn`."""

    kind: str
    name: str = ""


TURN = Cause("turn")
SCHEDULE = Cause("schedule")
DEPENDENCY = Cause("dependency")


class Waits:
    """Seconds by cause, each multiplied by the number of jobs that waited."""

    def __init__(self) -> None:
        self.seconds: dict[Cause, float] = defaultdict(float)


@dataclass(slots=True)
class Stretch:
    """So many jobs wait for one cause since a time."""

    waits: Waits
    since: float
    cause: Cause = TURN
    count: int = 0

    def advance(self, now: float) -> None:
        """Add what has passed until now."""
        if self.count and now > self.since:
            self.waits.seconds[self.cause] += self.count * (now - self.since)
        self.since = now

    def change(self, now: float, cause: Cause) -> None:
        """From now on they wait for another cause."""
        if cause != self.cause:
            self.advance(now)
            self.cause = cause

    def add(self, now: float, count: int) -> None:
        """From now on `count` more jobs wait; fewer where it is negative."""
        if count:
            self.advance(now)
            self.count += count
