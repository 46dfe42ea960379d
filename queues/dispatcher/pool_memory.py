"""What the dispatcher remembers of each pool: until when it is blocked, and how many candidates to admit in one batch."""

from __future__ import annotations

from collections.abc import Iterable

MAX_BATCH = 64
"""Candidates admitted in one round trip at most."""


class PoolMemory:
    """Times are monotonic seconds."""

    def __init__(self) -> None:
        self._blocked_until: dict[tuple[str, int], float] = {}
        self._batch_limits: dict[str, int] = {}

    def unblock(self) -> None:
        """Drop all blocks."""
        self._blocked_until.clear()

    def block(self, pool: str, priority: int, until: float) -> None:
        """Ask nothing of the pool for this priority until then."""
        self._blocked_until[pool, priority] = until

    def blocked_until(self, pool: str, priority: int) -> float:
        """0.0: it is not blocked."""
        return self._blocked_until.get((pool, priority), 0.0) if pool else 0.0

    def batch_limit(self, pool: str) -> int:
        """How many candidates of the pool go into the next batch at most."""
        return self._batch_limits.get(pool, MAX_BATCH) if pool else MAX_BATCH

    def learn(self, asked: Iterable[str], denied: set[str]) -> None:
        """A pool that denied gets one candidate in the next batch, and twice as many each time that it admits all."""
        for pool in asked:
            self._batch_limits[pool] = 1 if pool in denied else min(self._batch_limits.get(pool, 1) * 2, MAX_BATCH)
