"""When a dead child is started again, and when no more."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field


@dataclass
class Backoff:
    """Waits 0.2, 0.4, 0.8 .. seconds after deaths that follow each other; gives up at `deaths` within `window` seconds.

    Times are passed in, in seconds of any one clock.
    """

    deaths: int = 5
    window: float = 60.0
    first: float = 0.2
    longest: float = 5.0
    _recent: deque[float] = field(default_factory=deque)

    def died(self, now: float) -> float | None:
        """Seconds to wait before the next start; None when there must be none."""
        self._recent.append(now)
        while self._recent[0] <= now - self.window:
            self._recent.popleft()
        if len(self._recent) >= self.deaths:
            return None
        return min(self.first * 2 ** (len(self._recent) - 1), self.longest)
