"""The waits before a child process is started again."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Backoff:
    """0.1, 0.2, 0.4 .. seconds, at most `longest`, after exits in a row. A run of `steady` seconds resets the count.

    There is no last try: what kills a child may be a job or a full disk, and neither may end the other children.
    """

    first: float = 0.1
    longest: float = 10.0
    steady: float = 60.0
    deaths: int = 0
    """Deaths in a row."""

    def died(self, lived: float) -> float:
        """Seconds to wait before the next start of a child that lived so many seconds."""
        if lived >= self.steady:
            self.deaths = 0
        self.deaths += 1
        return float(min(self.first * 2 ** min(self.deaths - 1, 30), self.longest))

    def lives(self, lived: float) -> None:
        """The child has been alive for so many seconds: after a minute its earlier deaths don't count any more."""
        if lived >= self.steady:
            self.deaths = 0
