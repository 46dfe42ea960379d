"""Groups of waiting jobs in a simulation: in order, those with a blocked ordering key passed over."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from datetime import datetime

from queues.simulation.accounts import Account, Need, SimulatedPool
from queues.simulation.counters import Counter
from queues.simulation.waits import Cause, Stretch, Waits
from queues.states import GroupKey


@dataclass(frozen=True, slots=True)
class Charge:
    """What one job is charged by a policy: the counter's key, units, and the capacity for the job's priority."""

    policy: str
    counter: str
    units: int
    capacity: float


@dataclass(slots=True, eq=False)
class SimulatedJob:
    """A waiting job, or `size` equal ones that are simulated as one. `seconds`: the time that one of them runs."""

    id: int
    group: GroupKey
    created_at: datetime
    lane: str
    seconds: float
    size: int = 1
    ordering_key: str = ""
    ready_at: float = 0.0
    """Not before this time."""
    after: tuple[int, ...] = ()
    """Simulated jobs that end before."""
    charges: tuple[Charge, ...] = ()
    need: Need | None = None
    stopped: Cause | None = None
    """What keeps it from ever starting, unless an operator acts."""
    counts: bool = False
    """Whether the forecast is about it."""

    @property
    def priority(self) -> int:
        return self.group.priority

    @property
    def project_id(self) -> int:
        return self.group.project_id


@dataclass(slots=True, eq=False)
class Running:
    """A job that runs, with what its end frees. `ends_at`: when the last one ends of many that are simulated as one."""

    job: SimulatedJob
    ends_at: float
    pool: SimulatedPool | None = None
    account: Account | None = None
    counters: tuple[tuple[str, Counter, float], ...] = ()
    """Counters that its end frees, by their keys, with the units."""


@dataclass(slots=True)
class Line:
    """Jobs of one group with one ordering key, which start in order."""

    stretch: Stretch
    jobs: list[tuple[int, SimulatedJob]] = field(default_factory=list)
    blocked: bool = False
    counting: int = 0
    """Of its jobs, how many the forecast is about."""


class SimulatedGroup:
    """Ready jobs of one group. As the dispatcher's own, but with all jobs in memory."""

    def __init__(self, key: GroupKey, waits: Waits, now: float) -> None:
        self.key = key
        self.blocked_until = 0.0
        self.stretch = Stretch(waits, now)
        """Of the jobs whose ordering keys are not blocked."""
        self._waits = waits
        self._lines: dict[str, Line] = {}
        self._heads: list[tuple[int, str]] = []

    def add(self, job: SimulatedJob, now: float) -> None:
        """A job has become ready."""
        line = self._lines.get(job.ordering_key)
        if line is None:
            line = self._lines[job.ordering_key] = Line(Stretch(self._waits, now))
        heapq.heappush(line.jobs, (job.id, job))
        if job.counts:
            line.counting += job.size
            (line.stretch if line.blocked else self.stretch).add(now, job.size)
        if not line.blocked and line.jobs[0][1] is job:
            heapq.heappush(self._heads, (job.id, job.ordering_key))

    def head(self, taken: set[int]) -> SimulatedJob | None:
        """The next job that is not blocked."""
        while self._heads:
            number, key = self._heads[0]
            line = self._lines[key]
            if not line.blocked and line.jobs and line.jobs[0][0] == number:
                return line.jobs[0][1]
            heapq.heappop(self._heads)
        return None

    def draw(self) -> None:
        """Begin to start the job that `head` returned; `start` or `put` follows."""
        _, key = heapq.heappop(self._heads)
        heapq.heappop(self._lines[key].jobs)

    def put(self, job: SimulatedJob) -> None:
        """The drawn job does not start, and is the next one again."""
        heapq.heappush(self._lines[job.ordering_key].jobs, (job.id, job))
        heapq.heappush(self._heads, (job.id, job.ordering_key))

    def start(self, job: SimulatedJob, now: float) -> None:
        """The drawn job starts."""
        line = self._lines[job.ordering_key]
        if job.counts:
            line.counting -= job.size
            self.stretch.add(now, -job.size)
        if line.jobs:
            heapq.heappush(self._heads, (line.jobs[0][0], job.ordering_key))

    def block(self, key: str, cause: Cause, now: float) -> None:
        """Jobs with this ordering key wait until they are unblocked."""
        line = self._lines[key]
        line.blocked = True
        self.stretch.add(now, -line.counting)
        line.stretch.change(now, cause)
        line.stretch.add(now, line.counting)

    def unblock(self, key: str, now: float) -> None:
        """The wait of an ordering key is over."""
        line = self._lines[key]
        if not line.blocked:
            return
        line.blocked = False
        line.stretch.add(now, -line.counting)
        self.stretch.add(now, line.counting)
        if line.jobs:
            heapq.heappush(self._heads, (line.jobs[0][0], key))

    def stretches(self) -> list[Stretch]:
        """What its jobs wait for now."""
        return [self.stretch, *(line.stretch for line in self._lines.values())]


class WaitingRoom:
    """Ordering keys that one counter refuses, by group, in the order of their next jobs.

    When the counter has units again, only so many are tried as may pass: hundreds of users may wait for one limit.
    """

    def __init__(self) -> None:
        self._lines: dict[SimulatedGroup, list[tuple[int, str]]] = {}
        self.wakes_at = float("inf")
        """When the first of them may pass."""
        self.units, self.capacity = float("inf"), 0.0
        """The least cost and the largest capacity of those that wait."""

    def __bool__(self) -> bool:
        return any(self._lines.values())

    def add(self, group: SimulatedGroup, job: SimulatedJob) -> None:
        """The line of this job, which was refused."""
        heapq.heappush(self._lines.setdefault(group, []), (job.id, job.ordering_key))

    def leave(self, most: int, now: float) -> None:
        """Unblock the first lines of each group, so that they are tried."""
        for group, lines in self._lines.items():
            for _ in range(min(most, len(lines))):
                group.unblock(heapq.heappop(lines)[1], now)
