"""Cells in plain Python: the same arithmetic as lua/cells/cells.lua, in whole numbers, on values in a dict.

Each class keeps the use of one limit. Its instances are frozen values: `at` brings one forward to a moment, `judge`
decides, `charge` and `refund` make the next value. The Lua cells are tested against these.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from quotas.engine.costs import MAX_COST

RING = 60
FAR = 3_155_760_000_000_000
"""A century in microseconds: no longer wait is reported."""
Tags = tuple[Any, Any]


@dataclass(frozen=True, slots=True)
class Spec:
    """One limit as a cell needs it; p1..p4 as in lua/cells/cells.lua. Times in microseconds."""

    algo: int
    shadow: bool
    limit: int
    cost: int
    p1: int
    p2: int
    p3: int
    p4: int

    @property
    def capacity(self) -> int:
        return self.p1 if self.algo == 3 else self.limit


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a cell says to a cost. `retry` and `reset` in microseconds; retry -1 when it never passes."""

    allowed: bool
    used: int
    remaining: int
    retry: int
    reset: int
    impossible: bool = False


class StaleBoundaries(Exception):
    """None of the given calendar periods contains the present moment."""


def _ceil(n: int, d: int) -> int:
    return -(-n // d)


class Cell:
    """The use of one limit at one moment."""

    def used_now(self, spec: Spec, now: int) -> int:
        raise NotImplementedError

    def reset(self, spec: Spec, now: int) -> int:
        """Microseconds until nothing is used any more."""
        raise NotImplementedError

    def wait(self, spec: Spec, now: int, cost: int) -> int:
        """Microseconds until a cost passes that is within capacity, but not now."""
        raise NotImplementedError

    def at(self, spec: Spec, now: int) -> Cell:
        raise NotImplementedError

    def charge(self, spec: Spec, now: int, cost: int, lease: str) -> tuple[Cell, Tags]:
        raise NotImplementedError

    def refund(self, spec: Spec, now: int, amount: int, tags: Tags, lease: str) -> tuple[Cell, int]:
        raise NotImplementedError

    def judge(self, spec: Spec, now: int, cost: int) -> Verdict:
        used = self.used_now(spec, now)
        free = max(0, spec.capacity - used) if spec.limit else 0
        reset = self.reset(spec, now)
        if cost == 0 or (cost <= spec.capacity - used and spec.limit):
            return Verdict(True, used, free, 0, reset)
        if spec.limit == 0:
            return Verdict(False, used, free, -1, reset)
        if cost > spec.capacity:
            return Verdict(False, used, free, -1, reset, impossible=True)
        return Verdict(False, used, free, self.wait(spec, now, cost), reset)


@dataclass(frozen=True, slots=True)
class Ring(Cell):
    """sliding_window: counts per sub-bucket of 1/60 window; each counts until its end lies a whole window back."""

    counts: tuple[tuple[int, int], ...] = ()
    """(sub-bucket, units), ascending, none of them zero."""

    @staticmethod
    def _width(spec: Spec) -> int:
        return _ceil(spec.p1, RING)

    def at(self, spec: Spec, now: int) -> Ring:
        b = now // self._width(spec)
        live = [(j, c) for j, c in self.counts if j >= b - RING]
        ahead = sum(c for j, c in live if j >= b)
        return Ring(tuple([(j, c) for j, c in live if j < b] + ([(b, ahead)] if ahead else [])))

    def used_now(self, spec: Spec, now: int) -> int:
        return sum(c for _, c in self.counts)

    def reset(self, spec: Spec, now: int) -> int:
        return (self.counts[-1][0] + RING + 1) * self._width(spec) - now if self.counts else 0

    def wait(self, spec: Spec, now: int, cost: int) -> int:
        need = self.used_now(spec, now) - (spec.limit - cost)
        for j, c in self.counts:
            need -= c
            if need <= 0:
                return (j + RING + 1) * self._width(spec) - now
        raise AssertionError("a cost within the limit passes when all is free")

    def charge(self, spec: Spec, now: int, cost: int, lease: str) -> tuple[Ring, Tags]:
        b = now // self._width(spec)
        here = sum(c for j, c in self.counts if j == b) + min(cost, MAX_COST - self.used_now(spec, now))
        return Ring((*(pair for pair in self.counts if pair[0] != b), (b, here))), (b, 0)

    def refund(self, spec: Spec, now: int, amount: int, tags: Tags, lease: str) -> tuple[Ring, int]:
        back = min(amount, sum(c for j, c in self.counts if j == tags[0]))
        left = ((j, c - back if j == tags[0] else c) for j, c in self.counts)
        return Ring(tuple((j, c) for j, c in left if c)), back


@dataclass(frozen=True, slots=True)
class TwoWindows(Cell):
    """sliding_window_counter: this window's count and the share of the last one's that is still in view."""

    start: int = 0
    current: int = 0
    previous: int = 0

    def at(self, spec: Spec, now: int) -> TwoWindows:
        start = now - now % spec.p1
        if self.start >= start:
            return self
        return TwoWindows(start, 0, self.current if self.start == start - spec.p1 else 0)

    def _behind(self, spec: Spec, now: int) -> int:
        return _ceil(self.previous * (spec.p1 - max(0, now - self.start)), spec.p1)

    def used_now(self, spec: Spec, now: int) -> int:
        return min(self.current + self._behind(spec, now), MAX_COST)

    def reset(self, spec: Spec, now: int) -> int:
        windows = 2 if self.current else 1 if self.previous else 0
        return self.start + windows * spec.p1 - now if windows else 0

    def wait(self, spec: Spec, now: int, cost: int) -> int:
        room = spec.limit - cost
        if room >= self.current:
            return self.start + spec.p1 - (room - self.current) * spec.p1 // self.previous - now
        return self.start + 2 * spec.p1 - room * spec.p1 // self.current - now

    def charge(self, spec: Spec, now: int, cost: int, lease: str) -> tuple[TwoWindows, Tags]:
        return replace(self, current=min(self.current + cost, MAX_COST)), (self.start, 0)

    def refund(self, spec: Spec, now: int, amount: int, tags: Tags, lease: str) -> tuple[TwoWindows, int]:
        if tags[0] == self.start:
            back = min(amount, self.current)
            return replace(self, current=self.current - back), back
        if tags[0] == self.start - spec.p1:
            back = min(amount, self.previous)
            return replace(self, previous=self.previous - back), back
        return self, 0


@dataclass(frozen=True, slots=True)
class Bucket(Cell):
    """token_bucket: `used` - `rem` / p3 units are missing and come back at p2 per p3 microseconds."""

    used: int = 0
    rem: int = 0
    per: int = 1
    time: int = 0

    def at(self, spec: Spec, now: int) -> Bucket:
        used, rem = self.used, self.rem
        if self.per != spec.p3:
            rem = min(int(rem / self.per * spec.p3), spec.p3 - 1)
        back, part = divmod(max(0, now - self.time) * spec.p2 + rem, spec.p3)
        if back >= used:
            used = part = 0
        else:
            used -= back
        return Bucket(used, part, spec.p3, max(now, self.time))

    def _drain(self, spec: Spec, now: int, units: int) -> int:
        if units <= 0 or spec.p2 == 0:
            return 0
        return min(_ceil(units * spec.p3 - self.rem, spec.p2) + self.time - now, FAR)

    def used_now(self, spec: Spec, now: int) -> int:
        return self.used

    def reset(self, spec: Spec, now: int) -> int:
        return self._drain(spec, now, self.used)

    def wait(self, spec: Spec, now: int, cost: int) -> int:
        return self._drain(spec, now, self.used - (spec.p1 - cost))

    def charge(self, spec: Spec, now: int, cost: int, lease: str) -> tuple[Bucket, Tags]:
        after = Bucket(min(self.used + cost, MAX_COST), self.rem, spec.p3, now)
        return after, (after.used - (1 if self.rem else 0), now)

    def refund(self, spec: Spec, now: int, amount: int, tags: Tags, lease: str) -> tuple[Bucket, int]:
        drained = _ceil(max(0, now - tags[1]) * spec.p2, spec.p3)
        back = max(0, min(amount, self.used, tags[0] - drained))
        if not back:
            return self, 0
        return Bucket(self.used - back, self.rem if self.used > back else 0, spec.p3, now), back


@dataclass(frozen=True, slots=True)
class Period(Cell):
    """fixed_window and calendar: one counter and the period that it is about."""

    start: int = -(2**60)
    used: int = 0

    @staticmethod
    def _bounds(spec: Spec, now: int) -> tuple[int, int]:
        if spec.algo == 4:
            start = now - now % spec.p1
            return start, start + spec.p1
        for start, stop in ((spec.p2, spec.p3), (spec.p1, spec.p2), (spec.p3, spec.p4)):
            if start <= now < stop:
                return start, stop
        raise StaleBoundaries

    def _stop(self, spec: Spec) -> int:
        if spec.algo == 4:
            return self.start + spec.p1
        later = [p for p in (spec.p2, spec.p3, spec.p4) if p > self.start]
        return later[0] if later else self.start + spec.p3 - spec.p2

    def at(self, spec: Spec, now: int) -> Period:
        start, _ = self._bounds(spec, now)
        return self if self.start >= start else Period(start, 0)

    def used_now(self, spec: Spec, now: int) -> int:
        return self.used

    def reset(self, spec: Spec, now: int) -> int:
        return self._stop(spec) - now if self.used else 0

    def wait(self, spec: Spec, now: int, cost: int) -> int:
        return self._stop(spec) - now

    def charge(self, spec: Spec, now: int, cost: int, lease: str) -> tuple[Period, Tags]:
        return Period(self.start, min(self.used + cost, MAX_COST)), (self.start, 0)

    def refund(self, spec: Spec, now: int, amount: int, tags: Tags, lease: str) -> tuple[Period, int]:
        back = min(amount, self.used) if tags[0] == self.start else 0
        return Period(self.start, self.used - back), back


@dataclass(frozen=True, slots=True)
class Slots(Cell):
    """concurrency: leases and when they expire."""

    leases: tuple[tuple[int, str], ...] = ()
    """(expiry, slot), ascending."""

    def at(self, spec: Spec, now: int) -> Slots:
        return Slots(tuple(slot for slot in self.leases if slot[0] > now))

    def used_now(self, spec: Spec, now: int) -> int:
        return len(self.leases)

    def reset(self, spec: Spec, now: int) -> int:
        return self.leases[-1][0] - now if self.leases else 0

    def wait(self, spec: Spec, now: int, cost: int) -> int:
        return self.leases[len(self.leases) - (spec.limit - cost) - 1][0] - now

    def charge(self, spec: Spec, now: int, cost: int, lease: str) -> tuple[Slots, Tags]:
        taken = [(now + spec.p1, lease if n == 1 else f"{lease}:{n}") for n in range(1, cost + 1)]
        return Slots(tuple(sorted((*self.leases, *taken)))), (cost, 0)

    def refund(self, spec: Spec, now: int, amount: int, tags: Tags, lease: str) -> tuple[Slots, int]:
        kept = tuple(slot for slot in self.leases if slot[1] != lease and not slot[1].startswith(f"{lease}:"))
        return Slots(kept), len(self.leases) - len(kept)


EMPTY: dict[int, Cell] = {1: Ring(), 2: TwoWindows(), 3: Bucket(), 4: Period(), 5: Period(), 6: Slots()}
"""A cell in which nothing was used, by the algorithm's number."""
