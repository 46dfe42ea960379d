"""What the dispatcher remembers of each pool: until when it is blocked, and how many candidates to admit in one batch."""

from __future__ import annotations

from collections.abc import Iterable

from queues.dispatcher.wait_ledger import Cause

MAX_BATCH = 64
"""Candidates admitted in one round trip at most."""


class PoolMemory:
    """Times are monotonic seconds."""

    def __init__(self) -> None:
        self._blocks: dict[tuple[str, int], tuple[float, Cause]] = {}
        self._batch_limits: dict[str, int] = {}

    def unblock(self) -> None:
        """Drop all blocks."""
        self._blocks.clear()

    def block(self, pool: str, priority: int, until: float, cause: Cause) -> None:
        """Don't try the pool for this priority until then."""
        self._blocks[pool, priority] = (until, cause)

    def blocked_until(self, pool: str, priority: int) -> float:
        """0.0: it is not blocked."""
        return self._blocks[pool, priority][0] if (pool, priority) in self._blocks else 0.0

    def cause(self, pool: str, priority: int) -> Cause:
        """Why it is blocked; only for a pool that was."""
        return self._blocks[pool, priority][1]

    def batch_limit(self, pool: str) -> int:
        """How many candidates of the pool go into the next batch at most."""
        return self._batch_limits.get(pool, MAX_BATCH) if pool else MAX_BATCH

    def learn(self, asked: Iterable[str], denied: set[str]) -> None:
        """A pool that denied gets one candidate in the next batch, and twice as many each time that it admits all."""
        for pool in asked:
            self._batch_limits[pool] = 1 if pool in denied else min(self._batch_limits.get(pool, 1) * 2, MAX_BATCH)
