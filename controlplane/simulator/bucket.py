"""How providers count: a token bucket that refills, or a window that starts anew."""

from __future__ import annotations

import math


class Bucket:
    """A token bucket: `capacity` units, refilled at `rate` units per second. Times are monotonic seconds."""

    __slots__ = ("capacity", "level", "limit", "rate", "seen")

    def __init__(self, limit: float, per: float, capacity: float | None, now: float) -> None:
        self.limit = limit
        self.rate = limit / per
        self.capacity = float(limit if capacity is None else capacity)
        self.level = self.capacity
        self.seen = now

    def wait_for(self, cost: float, now: float) -> float:
        """Seconds until `cost` fits; 0 when it fits now, `inf` when it never will."""
        self._refill(now)
        if cost <= self.level + 1e-9:
            return 0.0
        if cost > self.capacity or self.rate == 0:
            return math.inf
        return (cost - self.level) / self.rate

    def take(self, cost: float) -> None:
        """Charge `cost`; a negative cost returns units. The level may fall below zero if a call used more."""
        self.level = min(self.capacity, self.level - cost)

    def remaining(self, now: float) -> int:
        """Whole units left."""
        self._refill(now)
        return max(0, math.floor(self.level + 1e-9))

    def reset_after(self, now: float) -> float:
        """Seconds until the bucket is full again."""
        self._refill(now)
        return (self.capacity - self.level) / self.rate if self.rate else 0.0

    def _refill(self, now: float) -> None:
        if now > self.seen:
            self.level = min(self.capacity, self.level + (now - self.seen) * self.rate)
            self.seen = now


class SteppingWindow:
    """A counter that starts anew every `per` seconds from its first use, as GitHub's does."""

    __slots__ = ("capacity", "ends", "limit", "per", "used")

    def __init__(self, limit: float, per: float, capacity: float | None, now: float) -> None:
        self.limit = limit
        self.capacity = float(limit)
        self.per = per
        self.used = 0.0
        self.ends = now + per

    def wait_for(self, cost: float, now: float) -> float:
        """Seconds until `cost` fits; 0 when it fits now, `inf` when it never will."""
        self._step(now)
        if self.used + cost <= self.limit:
            return 0.0
        return math.inf if cost > self.limit else self.ends - now

    def take(self, cost: float) -> None:
        """Charge `cost`; a negative cost returns units."""
        self.used = max(0.0, self.used + cost)

    def remaining(self, now: float) -> int:
        """Whole units left in this window."""
        self._step(now)
        return max(0, math.floor(self.limit - self.used))

    def reset_after(self, now: float) -> float:
        """Seconds until the window ends."""
        self._step(now)
        return self.ends - now

    def _step(self, now: float) -> None:
        if now >= self.ends:
            self.ends += self.per * (1 + (now - self.ends) // self.per)
            self.used = 0.0


Counter = Bucket | SteppingWindow
