"""The dispatcher in a simulation: events in the order of time, and after each of them whatever may start is started.

A job starts as in the dispatcher: when it is its group's turn (`queues.fair_share`), a worker slot and a slot of its
queue are free, every policy admits it, and an account of its pool takes it; else its ordering key, or its whole group if
the pool refused, waits until the time that the limits themselves name.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from typing import Any

from queues.config import ProjectSpec
from queues.fair_share import FairShare
from queues.simulation.admission import Denial, charge, denial_of, is_impossible
from queues.simulation.groups import Charge, Running, SimulatedGroup, SimulatedJob, WaitingRoom
from queues.simulation.scene import Outcome, Scene
from queues.simulation.waits import DEPENDENCY, SCHEDULE, Cause, Stretch, Waits
from queues.states import GroupKey
from queues.transactions import in_turns

HORIZON = 10 * 366 * 86_400.0
"""Seconds after which a simulation ends: what has not happened by then counts as never."""
MOST_EVENTS = 500_000
SHORTEST = 0.001
"""Seconds that a refused job waits at least, as in the dispatcher."""


def simulate(scene: Scene) -> Outcome:
    """Run until all jobs that the forecast is about have ended, or nothing can happen any more."""
    return _Simulation(scene).run()


class _SizedShare(FairShare[SimulatedGroup, SimulatedJob]):
    """A start of many jobs that are simulated as one moves the virtual time on by as much as theirs."""

    def step(self, candidate: SimulatedJob, projects: Mapping[int, ProjectSpec]) -> float:
        return super().step(candidate, projects) * candidate.size


@dataclass(frozen=True, slots=True)
class _Done:
    """The last of many jobs that are simulated as one has ended."""

    job: SimulatedJob


class _Simulation:
    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._now = scene.now
        self._share = _SizedShare()
        self._waits = Waits()
        self._groups: dict[GroupKey, SimulatedGroup] = {}
        self._room = dict(scene.slots)
        self._in_queue: dict[int, int] = {}
        self._events: list[tuple[float, int, Any]] = []
        self._numbers = count()
        self._left = 0
        """Simulated jobs that the forecast is about and that have not ended."""
        self._starts_at: float | None = None
        self._done_at = scene.now
        self._scheduled = Stretch(self._waits, scene.now, SCHEDULE)
        self._dependent = Stretch(self._waits, scene.now, DEPENDENCY)
        self._stopped: dict[Cause, Stretch] = {}
        self._awaited: dict[int, list[SimulatedJob]] = {}
        self._missing: dict[int, int] = {}
        """By a job's id, how many of those that it comes after have not ended."""
        self._rooms: dict[str, WaitingRoom] = {}
        """Ordering keys that policies refuse, by counter."""
        self._woken: dict[str, int] = {}
        """Counters whose lines are being tried, and how many of each group."""
        self._groups_of: dict[str, set[SimulatedGroup]] = {}
        """Groups that wait for the end of a call, by pool."""

    # Time

    def run(self) -> Outcome:
        for running in self._scene.running:
            self._take_slot(running.job)
            self._left += running.job.counts
            self._at(running.ends_at, running)
        for job in self._scene.jobs:
            self._left += job.counts
            self._enter(job)
        self._cycle()
        for _ in in_turns(range(MOST_EVENTS)):
            if not self._left or not self._events or self._events[0][0] > self._scene.now + HORIZON:
                break
            self._now = max(self._events[0][0], self._now)
            while self._events and self._events[0][0] <= self._now:
                self._happen(heapq.heappop(self._events)[2])
            self._cycle()
        return self._outcome()

    def _at(self, time: float, event: Any) -> None:
        heapq.heappush(self._events, (time, next(self._numbers), event))

    def _happen(self, event: Any) -> None:
        match event:
            case Running():
                self._end(event)
            case _Done(job):
                self._finish(job)
            case SimulatedJob():
                self._scheduled.add(self._now, -event.size if event.counts else 0)
                self._ready(event)
            case (SimulatedGroup() as group, str() as key):
                group.unblock(key, self._now)
            case str():
                self._wake(event)

    def _outcome(self) -> Outcome:
        stretches = [self._scheduled, self._dependent, *self._stopped.values()]
        stretches += [stretch for group in self._groups.values() for stretch in group.stretches()]
        never: dict[Cause, int] = {}
        for stretch in stretches:
            if stretch.count > 0:
                never[stretch.cause] = never.get(stretch.cause, 0) + stretch.count
        done = None if self._left else self._done_at
        return Outcome(self._starts_at, done, dict(self._waits.seconds), never)

    # Becoming ready

    def _enter(self, job: SimulatedJob) -> None:
        if job.stopped is not None:
            stretch = self._stopped.setdefault(job.stopped, Stretch(self._waits, self._now, job.stopped))
            stretch.add(self._now, job.size if job.counts else 0)
        elif job.after:
            self._missing[job.id] = len(job.after)
            self._dependent.add(self._now, job.size if job.counts else 0)
            for other in job.after:
                self._awaited.setdefault(other, []).append(job)
        else:
            self._due(job)

    def _due(self, job: SimulatedJob) -> None:
        if job.ready_at > self._now:
            self._scheduled.add(self._now, job.size if job.counts else 0)
            self._at(job.ready_at, job)
        else:
            self._ready(job)

    def _ready(self, job: SimulatedJob) -> None:
        group = self._groups.get(job.group)
        if group is None:
            group = self._groups[job.group] = SimulatedGroup(job.group, self._waits, self._now)
        group.add(job, self._now)

    def _free_dependants(self, job: SimulatedJob) -> None:
        for other in self._awaited.pop(job.id, ()):
            self._missing[other.id] -= 1
            if not self._missing[other.id]:
                self._dependent.add(self._now, -other.size if other.counts else 0)
                self._due(other)

    # Starting

    def _cycle(self) -> None:
        """Start whatever may start now."""
        self._round()
        while self._wake_more():
            self._round()

    def _round(self) -> None:
        groups = [group for group in self._groups.values() if self._is_open(group)]
        moment = datetime.fromtimestamp(self._now, UTC)
        for group, job in self._share.order(groups, set(), self._scene.projects, moment):
            shortage = self._shortage(job)
            denial = None if shortage else denial_of(job, self._scene, self._now)
            if shortage is None and denial is None:
                self._share.confirm(job)
                group.start(job, self._now)
                self._start(job)
                continue
            self._share.refund(job, self._scene.projects)
            group.put(job)
            if shortage is not None:
                group.blocked_until = self._now
                if not any(room > 0 for room in self._room.values()):
                    break
            elif denial is not None:
                self._block(group, job, denial)
        for group in groups:
            head = group.head(set()) if group.blocked_until <= self._now else None
            if head is not None and (cause := self._shortage(head)) is not None:
                group.stretch.change(self._now, cause)

    def _is_open(self, group: SimulatedGroup) -> bool:
        if group.blocked_until > self._now:
            return False
        group.blocked_until = 0.0
        head = group.head(set())
        cause = None if head is None else self._shortage(head)
        if cause is not None:
            group.stretch.change(self._now, cause)
        return head is not None and cause is None

    def _shortage(self, job: SimulatedJob) -> Cause | None:
        name, most = self._scene.concurrency.get(job.group.queue_id, ("", None))
        if most is not None and self._in_queue.get(job.group.queue_id, 0) >= most:
            return Cause("queue", name)
        return None if self._room.get(job.lane, 0) > 0 else Cause("workers", job.lane)

    def _block(self, group: SimulatedGroup, job: SimulatedJob, denial: Denial) -> None:
        """As in the dispatcher: the whole group if its pool refused, else the ordering key."""
        until = self._now + max(denial.wait, SHORTEST)
        if denial.charge is not None:
            group.block(job.ordering_key, denial.cause, self._now)
            self._wait_in_room(group, job, denial.charge, until)
        elif denial.by_key and not denial.pool:
            group.block(job.ordering_key, denial.cause, self._now)
            if until < math.inf:
                self._at(until, (group, job.ordering_key))
        else:
            group.blocked_until = until
            group.stretch.change(self._now, denial.cause)
            if until < math.inf:
                self._at(until, None)
            if denial.pool:
                self._groups_of.setdefault(denial.pool, set()).add(group)

    def _wait_in_room(self, group: SimulatedGroup, job: SimulatedJob, charge: Charge, until: float) -> None:
        room = self._rooms.setdefault(charge.counter, WaitingRoom())
        self._woken.pop(charge.counter, None)  # the counter is used up again
        room.add(group, job)
        room.units, room.capacity = min(room.units, charge.units), max(room.capacity, charge.capacity)
        if until < room.wakes_at:
            room.wakes_at = until
            self._at(until, charge.counter)

    def _wake(self, counter: str) -> None:
        """Try as many of those that a counter refuses as it may admit now, and one more."""
        room = self._rooms.get(counter)
        if room is None:
            return
        free = self._scene.counters[counter].free(self._now, room.capacity)
        most = max(int(free / room.units), 0) + 1 if room.units else 1
        self._woken[counter] = most
        room.wakes_at = math.inf
        room.leave(most, self._now)

    def _wake_more(self) -> bool:
        """Of counters that refused none of those that were tried, try more: others refused those. False: there are none."""
        woken, self._woken = self._woken, {}
        for counter, most in woken.items():
            if self._rooms[counter]:
                self._woken[counter] = 2 * most
                self._rooms[counter].leave(2 * most, self._now)
        return bool(self._woken)

    def _start(self, job: SimulatedJob) -> None:
        self._take_slot(job)
        if job.counts and self._starts_at is None:
            self._starts_at = self._now
        if is_impossible(job, self._scene.pools):
            self._at(self._now, Running(job, self._now))
            return
        charged = charge(job, self._scene, self._now)
        if job.counts and job.size > 1 and charged.slowest is not None:
            # The others of them start one after the other until the last one passes.
            self._waits.seconds[charged.slowest] += charged.seconds * (job.size - 1) / 2
        # Many that are simulated as one occupy a slot for as long as they run, however long their limits take.
        work = job.seconds * job.size
        ends_at = self._now + max(work, charged.seconds + job.seconds)
        self._at(self._now + work, Running(job, ends_at, charged.pool, charged.account, charged.counters))

    def _take_slot(self, job: SimulatedJob) -> None:
        self._room[job.lane] = self._room.get(job.lane, 0) - 1
        self._in_queue[job.group.queue_id] = self._in_queue.get(job.group.queue_id, 0) + 1

    # Ending

    def _end(self, running: Running) -> None:
        job = running.job
        self._room[job.lane] += 1
        self._in_queue[job.group.queue_id] -= 1
        for name, counter, units in running.counters:
            counter.release(units)
            self._wake(name)
        if running.pool is not None and running.account is not None and job.need is not None:
            running.pool.release(running.account, job.need, self._now)
            for name in job.need.pools:
                for group in self._groups_of.pop(name, ()):
                    group.blocked_until = 0.0
        if running.ends_at > self._now:
            self._at(running.ends_at, _Done(job))
        else:
            self._finish(job)

    def _finish(self, job: SimulatedJob) -> None:
        if job.counts:
            self._left -= 1
            self._done_at = self._now
        self._free_dependants(job)
