"""Which ready jobs are tried next: each group's in order, and groups by priority, then by project weight, then by age.

Projects of one priority share by start-time fair queueing (Goyal, Vin, Cheng 1996): each start moves its project's
virtual time on by 1/weight, and the least goes next. A project that comes back from idleness begins at the present
virtual time, so that it neither waits for what others had nor claims what it did not use. One start in `AGEING_SHARE`
goes to the oldest job that has waited longer than `AGEING_AFTER`, whatever its priority, so that none starves.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timedelta

from django.db import connection

from queues.config import ProjectSpec
from queues.lifecycle.sql import quoted, read
from queues.states import GroupKey, Stage

FETCH = 200
"""Jobs read at a time."""
AGEING_SHARE = 20
AGEING_AFTER = timedelta(seconds=30)


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

    def next_block_end(self) -> float | None:
        """When the first of its blocks ends."""
        times = [*self._blocked_keys.values()]
        if self.blocked_until:
            times.append(self.blocked_until)
        return min(times, default=None)


class FairShare:
    """Virtual times of the projects, kept from cycle to cycle.

    A drawn job is charged at once, since the next draw depends on it, and is then either confirmed or refunded. Only
    confirmed jobs advance the present virtual time: if jobs without a slot did, a project would lose its credit each
    time that it is not its turn.
    """

    def __init__(self) -> None:
        self._times: dict[tuple[int, int], float] = {}
        self._present: dict[int, float] = {}
        self._begun: dict[int, float] = {}
        """Virtual start times of jobs that were drawn and are neither confirmed nor refunded."""
        self._since_ageing = 0
        self._aged_ids: set[int] = set()
        self._ageing_owed = False
        """The job that had waited too long found no slot: the next round begins with it."""

    def _time(self, priority: int, project_id: int) -> float:
        return max(self._times.get((priority, project_id), 0.0), self._present.get(priority, 0.0))

    def _draw(self, candidate: Candidate, projects: Mapping[int, ProjectSpec]) -> None:
        begun = self._time(candidate.priority, candidate.project_id)
        self._begun[candidate.id] = begun
        self._times[candidate.priority, candidate.project_id] = begun + 1.0 / _weight(candidate, projects)

    def confirm(self, candidate: Candidate) -> None:
        """The job starts."""
        begun = self._begun.pop(candidate.id, 0.0)
        self._present[candidate.priority] = max(self._present.get(candidate.priority, 0.0), begun)
        self._aged_ids.discard(candidate.id)

    def refund(self, candidate: Candidate, projects: Mapping[int, ProjectSpec]) -> None:
        """The job does not start after all and keeps its turn."""
        self._begun.pop(candidate.id, None)
        self._times[candidate.priority, candidate.project_id] -= 1.0 / _weight(candidate, projects)
        if candidate.id in self._aged_ids:
            self._aged_ids.discard(candidate.id)
            self._ageing_owed = True
        else:
            self._since_ageing = max(self._since_ageing - 1, 0)

    def order(
        self, groups: list[GroupCursor], taken: set[int], projects: Mapping[int, ProjectSpec], now: datetime
    ) -> Iterator[tuple[GroupCursor, Candidate]]:
        """Draw candidates one after the other. A drawn job leaves its group and is charged to its project."""
        if self._ageing_owed:
            self._since_ageing, self._ageing_owed = AGEING_SHARE, False
        heap: list[tuple[int, float, int, int]] = []
        for position, group in enumerate(groups):
            self._push(heap, group, position, taken)
        while heap:
            aged = self._aged(heap, groups, now)
            position = heapq.heappop(heap)[3] if aged is None else aged
            group = groups[position]
            candidate = group.head(taken)
            if candidate is None:
                continue
            # Virtual time may have advanced since this entry was made: then the entry is sorted in again.
            fresh = self._time(candidate.priority, candidate.project_id)
            if heap and aged is None and (candidate.priority, fresh, candidate.id) > heap[0][:3]:
                heapq.heappush(heap, (candidate.priority, fresh, candidate.id, position))
                _, _, _, position = heapq.heappop(heap)
                group = groups[position]
                candidate = group.head(taken)
                if candidate is None:
                    continue
            group.rows.popleft()
            taken.add(candidate.id)
            self._since_ageing += 1
            if aged is not None:
                self._aged_ids.add(candidate.id)
            self._draw(candidate, projects)
            yield group, candidate
            if group.blocked_until == 0.0:
                self._push(heap, group, position, taken)

    def _push(
        self, heap: list[tuple[int, float, int, int]], group: GroupCursor, position: int, taken: set[int]
    ) -> None:
        head = group.head(taken)
        if head is not None:
            heapq.heappush(heap, (head.priority, self._time(head.priority, head.project_id), head.id, position))

    def _aged(self, heap: list[tuple[int, float, int, int]], groups: list[GroupCursor], now: datetime) -> int | None:
        """Every so often, the group of the oldest head that waits too long; it leaves the heap."""
        if self._since_ageing < AGEING_SHARE:
            return None
        self._since_ageing = 0
        oldest = min(heap, key=lambda entry: entry[2])
        rows = groups[oldest[3]].rows
        if not rows or now - rows[0].created_at < AGEING_AFTER:
            return None
        heap.remove(oldest)
        heapq.heapify(heap)
        return oldest[3]


def _weight(candidate: Candidate, projects: Mapping[int, ProjectSpec]) -> int:
    project = projects.get(candidate.project_id)
    return max(project.weight if project else 1, 1)
