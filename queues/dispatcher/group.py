"""What waits in one group: its next jobs in memory, and which of its lanes are blocked until when."""

from __future__ import annotations

from collections import deque

from queues.dispatcher.candidate import Candidate, heads
from queues.ready_groups import GroupKey

FETCH = 200
"""Jobs read at a time."""


class Group:
    """Jobs of one (queue, priority, project, pool) in order of submission. Times are monotonic seconds.

    A blocked lane is skipped, so that what is behind it in other lanes goes on; when it opens, reading begins anew at
    the front, so that order inside the lane holds.
    """

    def __init__(self, key: GroupKey) -> None:
        self.key = key
        self.rows: deque[Candidate] = deque()
        self.blocked: dict[str, float] = {}
        self.held_until = 0.0
        self._behind = 0
        self._exhausted = False
        self._passed_over = False

    def restart(self) -> None:
        """Begin at the front again: something came back that is older than what was read."""
        self.rows.clear()
        self._behind = 0
        self._exhausted = False

    def grew(self) -> None:
        """Something was added at the end."""
        self._exhausted = False

    def unblock(self, *, changed: bool) -> None:
        """Forget every block; what limits will say so again. `changed`: the configuration has, so that also what was
        passed over has another chance."""
        self.held_until = 0.0
        if self.blocked or (changed and self._passed_over):
            self.blocked.clear()
            self._passed_over = False
            self.restart()

    def open_lanes(self, now: float) -> None:
        """Let lanes go on whose block is over."""
        over = [lane for lane, until in self.blocked.items() if until <= now]
        for lane in over:
            del self.blocked[lane]
        if over:
            self.restart()

    def block(self, lane: str, until: float) -> None:
        """Pass over a lane until then."""
        self.blocked[lane] = until
        self.rows = deque(row for row in self.rows if row.lane != lane)

    def pass_over(self) -> None:
        """The one that was drawn last waits for a change of configuration, which unblocks."""
        self._passed_over = True

    def put_back(self, candidates: list[Candidate]) -> None:
        """Return what was drawn and not used, in order, to the front."""
        self.rows.extendleft(reversed([row for row in candidates if row.lane not in self.blocked]))

    def head(self, taken: set[int]) -> Candidate | None:
        """The next candidate, without drawing it; None where nothing waits that is not blocked."""
        while True:
            while self.rows:
                row = self.rows[0]
                if row.id not in taken and row.lane not in self.blocked:
                    return row
                self.rows.popleft()
            if self._exhausted:
                return None
            fetched = heads(self.key, behind=self._behind, without=list(self.blocked), count=FETCH)
            self._exhausted = len(fetched) < FETCH
            if not fetched:
                return None
            self._behind = fetched[-1].id
            self.rows.extend(fetched)

    def wakes_at(self) -> float | None:
        """When a block ends."""
        times = [*self.blocked.values()]
        if self.held_until:
            times.append(self.held_until)
        return min(times, default=None)
