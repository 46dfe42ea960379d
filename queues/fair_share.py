"""Whose turn it is: groups of waiting jobs by priority, then by project weight, then by age.

Projects of one priority share by start-time fair queueing (Goyal, Vin, Cheng 1996): each start moves its project's
virtual time on by 1/weight, and the least goes next. A project that comes back from idleness begins at the present
virtual time, so that it neither waits for what others had nor claims what it did not use. One start in `AGEING_SHARE`
goes to the oldest job that has waited longer than `AGEING_AFTER`, whatever its priority, so that none starves.

The dispatcher draws real jobs by this rule, and a forecast draws simulated ones.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Generic, Protocol, TypeVar

from queues.config import ProjectSpec

AGEING_SHARE = 20
AGEING_AFTER = timedelta(seconds=30)


class Waiting(Protocol):
    """A job that waits, as far as its turn depends on it."""

    @property
    def id(self) -> int: ...
    @property
    def priority(self) -> int: ...
    @property
    def project_id(self) -> int: ...
    @property
    def created_at(self) -> datetime: ...


class Group(Protocol):
    """Jobs in order. No more of them are drawn in a round in which `blocked_until` is not 0.0."""

    blocked_until: float

    def head(self, taken: set[int]) -> Any:
        """The next job that is not in `taken`, without drawing it; None if there is none."""

    def draw(self) -> None:
        """Remove the job that `head` returned."""


G = TypeVar("G", bound=Group)
C = TypeVar("C", bound=Waiting)


class FairShare(Generic[G, C]):
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

    def _draw(self, candidate: C, projects: Mapping[int, ProjectSpec]) -> None:
        begun = self._time(candidate.priority, candidate.project_id)
        self._begun[candidate.id] = begun
        self._times[candidate.priority, candidate.project_id] = begun + self.step(candidate, projects)

    def step(self, candidate: C, projects: Mapping[int, ProjectSpec]) -> float:
        """How far a start moves its project's virtual time on."""
        project = projects.get(candidate.project_id)
        return 1.0 / max(project.weight if project else 1, 1)

    def confirm(self, candidate: C) -> None:
        """The job starts."""
        begun = self._begun.pop(candidate.id, 0.0)
        self._present[candidate.priority] = max(self._present.get(candidate.priority, 0.0), begun)
        self._aged_ids.discard(candidate.id)

    def refund(self, candidate: C, projects: Mapping[int, ProjectSpec]) -> None:
        """The job does not start after all and keeps its turn."""
        self._begun.pop(candidate.id, None)
        self._times[candidate.priority, candidate.project_id] -= self.step(candidate, projects)
        if candidate.id in self._aged_ids:
            self._aged_ids.discard(candidate.id)
            self._ageing_owed = True
        else:
            self._since_ageing = max(self._since_ageing - 1, 0)

    def order(
        self, groups: Sequence[G], taken: set[int], projects: Mapping[int, ProjectSpec], now: datetime
    ) -> Iterator[tuple[G, C]]:
        """Draw candidates one after the other. A drawn job leaves its group and is charged to its project."""
        if self._ageing_owed:
            self._since_ageing, self._ageing_owed = AGEING_SHARE, False
        heap: list[tuple[int, float, int, int]] = []
        for position, group in enumerate(groups):
            self._push(heap, group, position, taken)
        while heap:
            aged = self._aged(heap, groups, taken, now)
            position = heapq.heappop(heap)[3] if aged is None else aged
            group = groups[position]
            candidate: C | None = group.head(taken)
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
            group.draw()
            taken.add(candidate.id)
            self._since_ageing += 1
            if aged is not None:
                self._aged_ids.add(candidate.id)
            self._draw(candidate, projects)
            yield group, candidate
            if group.blocked_until == 0.0:
                self._push(heap, group, position, taken)

    def _push(self, heap: list[tuple[int, float, int, int]], group: G, position: int, taken: set[int]) -> None:
        head = group.head(taken)
        if head is not None:
            heapq.heappush(heap, (head.priority, self._time(head.priority, head.project_id), head.id, position))

    def _aged(
        self, heap: list[tuple[int, float, int, int]], groups: Sequence[G], taken: set[int], now: datetime
    ) -> int | None:
        """Every so often, the group of the oldest head that waits too long; it leaves the heap."""
        if self._since_ageing < AGEING_SHARE:
            return None
        self._since_ageing = 0
        oldest = min(heap, key=lambda entry: entry[2])
        first: C | None = groups[oldest[3]].head(taken)
        if first is None or now - first.created_at < AGEING_AFTER:
            return None
        heap.remove(oldest)
        heapq.heapify(heap)
        return oldest[3]
