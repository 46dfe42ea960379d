"""Counters of limits in a simulation: how long a cost waits, and what charging it leaves.

One charge may be that of many equal jobs that are simulated as one: it may exceed the capacity, and then takes as many
windows as it needs. Times are Unix seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from quotas.engine.limits.periods import boundaries
from quotas.engine.types import Limit

RING = 60
"""Parts of a sliding window: a use counts until its part lies a whole window back, as in the engine."""
LENGTHS = {"day": 86_400.0, "week": 7 * 86_400.0, "month": 30.4375 * 86_400.0}
"""Seconds of a calendar period, on average."""
ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class Use:
    """What is used of a counter at the beginning, and when it comes back: (time, units) in the order of time."""

    releases: tuple[tuple[float, float], ...] = ()

    @property
    def units(self) -> float:
        return sum(units for _, units in self.releases)


NOTHING = Use()


class Counter(Protocol):
    """The use of one limit. `capacity`: the most that may be used at once, which may differ by priority."""

    by_ends: bool
    """Whether ends of jobs free it, so that its waits are not known in advance."""

    def wait(self, now: float, units: float, capacity: float) -> float:
        """Seconds until `units` pass; infinite where they never do, or where only the end of a job helps."""

    def free(self, now: float, capacity: float) -> float:
        """Units that pass now."""

    def charge(self, now: float, units: float, capacity: float) -> float:
        """Charge units, the first of which pass now; seconds until the last of them passes."""

    def release(self, units: float) -> None:
        """A job that was charged has ended."""


class Bucket:
    """`token_bucket`: what is used comes back at `rate` units a second."""

    by_ends = False

    def __init__(self, rate: float, use: Use, now: float) -> None:
        self._rate = rate
        self._used = use.units
        self._at = now

    def _advance(self, now: float) -> None:
        self._used = max(self._used - max(now - self._at, 0.0) * self._rate, 0.0)
        self._at = max(now, self._at)

    def wait(self, now: float, units: float, capacity: float) -> float:
        self._advance(now)
        over = self._used + units - capacity
        if over <= ROUNDING:
            return 0.0
        return over / self._rate if units <= capacity and self._rate else math.inf

    def free(self, now: float, capacity: float) -> float:
        self._advance(now)
        return capacity - self._used

    def charge(self, now: float, units: float, capacity: float) -> float:
        self._advance(now)
        self._used += units
        over = self._used - capacity
        return over / self._rate if over > ROUNDING and self._rate else 0.0

    def release(self, units: float) -> None:
        pass


class Window:
    """A limit per window: what is used at a time comes back at `end_of` that time.

    `cycle`: seconds in which a full counter is used and freed once.
    """

    by_ends = False

    def __init__(self, end_of: Callable[[float], float], cycle: float, use: Use) -> None:
        self._end_of = end_of
        self._cycle = cycle
        self._releases = [[at, units] for at, units in use.releases]
        self._used = use.units
        self._taken_until = 0.0
        """Until then all that comes back is taken by charges that were larger than the capacity."""

    def _advance(self, now: float) -> None:
        while self._releases and self._releases[0][0] <= now + ROUNDING:
            self._used -= self._releases.pop(0)[1]

    def _add(self, at: float, units: float) -> None:
        if units <= 0:
            return
        end = self._end_of(at)
        self._used += units
        if self._releases and self._releases[-1][0] >= end - ROUNDING:
            self._releases[-1][1] += units
        else:
            self._releases.append([end, units])

    def wait(self, now: float, units: float, capacity: float) -> float:
        begin = max(now, self._taken_until)
        self._advance(begin)
        over = self._used + units - capacity
        if over <= ROUNDING:
            return begin - now
        if units > capacity:
            return math.inf
        for at, freed in self._releases:
            over -= freed
            if over <= ROUNDING:
                return at - now
        return math.inf

    def free(self, now: float, capacity: float) -> float:
        self._advance(now)
        return capacity - self._used if now >= self._taken_until else 0.0

    def charge(self, now: float, units: float, capacity: float) -> float:
        self._advance(now)
        room = min(units, max(capacity - self._used, 0.0))
        self._add(now, room)
        left, at = units - room, now
        if left >= capacity > 0:  # whole cycles, each of which leaves the counter as it is
            whole = left // capacity
            left -= whole * capacity
            for entry in self._releases:
                entry[0] += whole * self._cycle
            at = self._releases[-1][0] - self._cycle if self._releases else now
        while left > ROUNDING and self._releases:
            at = self._releases[0][0]
            self._advance(at)
            part = min(left, capacity - self._used)
            self._add(at, part)
            left -= part
        self._taken_until = max(at, self._taken_until)
        return max(at - now, 0.0)

    def release(self, units: float) -> None:
        pass


class Slots:
    """`concurrency`: what is used comes back when a job ends. `others`: slots of calls that are no jobs, and when
    these expire at the latest."""

    by_ends = True

    def __init__(self, used: float, others: Use) -> None:
        self._used = used
        self._others = list(others.releases)

    def free(self, now: float, capacity: float) -> float:
        self._others = [other for other in self._others if other[0] > now + ROUNDING]
        return capacity - self._used - sum(units for _, units in self._others)

    def wait(self, now: float, units: float, capacity: float) -> float:
        over = units - self.free(now, capacity)
        if over <= ROUNDING:
            return 0.0
        if units <= capacity:
            for at, freed in self._others:
                over -= freed
                if over <= ROUNDING:
                    return at - now
        return math.inf

    def charge(self, now: float, units: float, capacity: float) -> float:
        self._used += units
        return 0.0

    def release(self, units: float) -> None:
        self._used = max(self._used - units, 0.0)


def counter_of(limit: Limit, use: Use, now: float, *, in_flight: float = 0.0) -> Counter:
    """The counter of a limit that limits. `in_flight`: slots of a `concurrency` limit that jobs occupy, whose ends are
    simulated; they are not part of `use`."""
    match limit.algorithm:
        case "token_bucket":
            return Bucket((limit.limit or 0) / limit.window, use, now)
        case "concurrency":
            return Slots(in_flight, use)
        case "calendar":
            return _period(_Calendar(limit.period, limit.timezone), LENGTHS[limit.period], use, now)
        case "fixed_window":
            window = limit.window
            return _period(lambda at: (at // window + 1) * window, window, use, now)
    # Also `sliding_window_counter`, which admits as much in the long run.
    part = limit.window / RING
    return Window(lambda at: (at // part + RING + 1) * part, limit.window + part, use)


def _period(end_of: Callable[[float], float], length: float, use: Use, now: float) -> Window:
    """What is used comes back where the present period ends by this clock, which may differ a little from the server's."""
    return Window(end_of, length, Use(((end_of(now), use.units),)) if use.units else NOTHING)


class _Calendar:
    """Where the period ends in which a time lies."""

    def __init__(self, period: str, timezone: str) -> None:
        self._period, self._timezone = period, timezone
        self._start = self._end = 0.0

    def __call__(self, at: float) -> float:
        if not self._start <= at < self._end:
            _, start, end, _ = boundaries(self._period, self._timezone, int(at * 1e6))
            self._start, self._end = start / 1e6, end / 1e6
        return self._end


def spread(times: Iterable[tuple[float, float]]) -> Use:
    """The use of which by each of these times so many units in all have come back."""
    releases, before = [], 0.0
    for at, units in sorted(times):
        if units > before:
            releases.append((at, units - before))
            before = units
    return Use(tuple(releases))
