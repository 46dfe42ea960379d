"""Ready jobs as the dispatcher reads them: each group's in order. Which group is next: `queues.fair_share`."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime

from django.db import connection

from queues.lifecycle.sql import quoted, read
from queues.states import GroupKey, Stage

FETCH = 200
"""Jobs read at a time."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A ready job as the dispatcher reads it: the columns that admission and order need."""

    id: int
    uid: str
    queue_id: int
    priority: int
    project_id: int
    pool: str
    ordering_key: str
    user: str
    keys: Mapping[str, str]
    cost: Mapping[str, int]
    delivery: int
    suspect: bool
    created_at: datetime
    status: str
    timeout: float | None
    model: str = ""
    refused_by: int | None = None
    type: str = ""

    @property
    def group(self) -> GroupKey:
        return GroupKey(self.queue_id, self.priority, self.project_id, self.pool)

    @property
    def token(self) -> str:
        """Names the job's next delivery, so that admitting it twice charges once."""
        return f"{self.uid}.{self.delivery + 1}"


COLUMNS = tuple(field.name for field in fields(Candidate))
_OF_GROUP = (
    f'FROM "queues_job" WHERE "stage" = {int(Stage.READY)} AND "queue_id" = %s AND "priority" = %s AND "project_id" = %s'
    ' AND "pool" = %s'
)
_READ = f'SELECT {", ".join(map(quoted, COLUMNS))} {_OF_GROUP} AND "id" > %s'
_COUNT = f'SELECT count(*) FROM (SELECT 1 {_OF_GROUP} AND "id" <= %s'  # noqa: S608


def read_ready(group: GroupKey, *, after_id: int, without_keys: list[str], count: int) -> list[Candidate]:
    """The next `count` ready jobs of a group after the id `after_id`, in order, except those with the ordering keys
    `without_keys`."""
    keys = f'AND "ordering_key" NOT IN ({", ".join(["%s"] * len(without_keys))}) ' if without_keys else ""
    with connection.cursor() as cursor:
        cursor.execute(f'{_READ} {keys}ORDER BY "id" LIMIT {int(count)}', [*group, after_id, *without_keys])
        return [Candidate(*row) for row in read(COLUMNS, cursor.fetchall())]


def has_more_ready(group: GroupKey, than: int, *, up_to_id: int, without: set[int]) -> bool:
    """Whether a group has more than so many ready jobs up to the id `up_to_id`, besides those in `without`."""
    others = f'AND "id" NOT IN ({", ".join(["%s"] * len(without))}) ' if without else ""
    with connection.cursor() as cursor:
        cursor.execute(f"{_COUNT} {others}LIMIT {int(than) + 1}) AS found", [*group, up_to_id, *without])
        return bool(cursor.fetchone()[0] > than)


class GroupCursor:
    """Jobs of one (queue, priority, project, pool) in order of submission. Times are monotonic seconds.

    Jobs with a blocked ordering key are skipped, so that those behind them with other keys are still started. When a
    block ends, reading starts again at the front, so that jobs with one key start in order.
    """

    def __init__(self, key: GroupKey) -> None:
        self.key = key
        self.rows: deque[Candidate] = deque()
        self.blocked_until = 0.0
        """Until then the whole group is blocked; 0.0: it is not."""
        self._blocked_keys: dict[str, float] = {}
        self._last_id = 0
        self._exhausted = False
        self._passed_over: set[int] = set()

    def restart(self) -> None:
        """Read from the front again: a job came back that is older than what was read."""
        self.rows.clear()
        self._last_id = 0
        self._exhausted = False

    def read_on(self) -> None:
        """Jobs were added at the end."""
        self._exhausted = False
        if not self._blocked_keys:
            self.look_back()

    def look_back(self) -> None:
        """Read from the front again if a job has appeared among those that were read before.

        PostgreSQL gives a job its id when its row is written, and shows it when its transaction is committed: of two that
        were submitted at once, the one with the smaller id may appear later. SQLite has one writer at a time. Jobs of
        blocked keys are not here; the end of their block restarts.
        """
        if not self._last_id or connection.vendor != "postgresql":
            return
        if has_more_ready(self.key, len(self.rows), up_to_id=self._last_id, without=self._passed_over):
            self.restart()

    def unblock(self, *, changed: bool) -> None:
        """Drop all blocks; limits that still bind deny again. `changed`: the configuration has changed, so that jobs
        that were passed over are tried again, too."""
        self.blocked_until = 0.0
        if self._blocked_keys or (changed and self._passed_over):
            self._blocked_keys.clear()
            self._passed_over.clear()
            self.restart()

    def end_blocks(self, moment: float) -> None:
        """Drop the blocks that have ended."""
        if self.blocked_until <= moment:
            self.blocked_until = 0.0
        over = [key for key, until in self._blocked_keys.items() if until <= moment]
        for key in over:
            del self._blocked_keys[key]
        if over:
            self.restart()

    def block(self, ordering_key: str, until: float) -> None:
        """Skip jobs with this ordering key until then."""
        self._blocked_keys[ordering_key] = until
        self.rows = deque(row for row in self.rows if row.ordering_key != ordering_key)

    def pass_over(self, candidate: Candidate) -> None:
        """The drawn job waits for a change of configuration, which unblocks."""
        self._passed_over.add(candidate.id)

    def return_unused(self, candidates: list[Candidate]) -> None:
        """Return drawn jobs that were not released to the front, in order."""
        self.rows.extendleft(reversed([row for row in candidates if row.ordering_key not in self._blocked_keys]))

    def head(self, taken: set[int]) -> Candidate | None:
        """The next job that is not blocked and not in `taken`, without drawing it; None if there is none."""
        while True:
            while self.rows:
                row = self.rows[0]
                if row.id not in taken and row.ordering_key not in self._blocked_keys:
                    return row
                self.rows.popleft()
            if self._exhausted:
                return None
            fetched = read_ready(self.key, after_id=self._last_id, without_keys=list(self._blocked_keys), count=FETCH)
            self._exhausted = len(fetched) < FETCH
            if not fetched:
                return None
            self._last_id = fetched[-1].id
            self.rows.extend(fetched)

    def draw(self) -> None:
        """Remove the job that `head` returned."""
        self.rows.popleft()

    def next_block_end(self) -> float | None:
        """When the first of its blocks ends."""
        times = [*self._blocked_keys.values()]
        if self.blocked_until:
            times.append(self.blocked_until)
        return min(times, default=None)
