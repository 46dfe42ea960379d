"""Processes: services, the leader, workers and their threads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from quotas.events.bus import Event


@dataclass(frozen=True, slots=True)
class ProcessStarted(Event):
    """A process of ours begins its work, so that what belongs beside it can begin. `leads`: whether it leads now."""

    role: str
    leads: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class ServiceUnavailable(Event):
    """SQL or Redis did not answer `component` while it did `what`; it is tried again."""

    component: str
    what: str
    error: str


@dataclass(frozen=True, slots=True)
class LeaderChanged(Event):
    """Another dispatcher leads."""

    holder: str
    token: int


@dataclass(frozen=True, slots=True)
class LeadershipEnded(Event):
    """A dispatcher found that another one leads."""

    holder: str


@dataclass(frozen=True, slots=True)
class WorkerStarted(Event):
    """A worker process takes jobs now."""

    worker: str
    lane: str
    slots: int


@dataclass(frozen=True, slots=True)
class WorkerRecycling(Event):
    """A worker takes no more jobs and will stop, to be replaced; `why`: jobs, memory or a stuck thread."""

    worker: str
    why: str


@dataclass(frozen=True, slots=True)
class WorkerStopped(Event):
    """A worker process has stopped."""

    worker: str


@dataclass(frozen=True, slots=True)
class LoopBlocked(Event):
    """Code of an async job has kept its event loop from running other jobs; jobs that come run in another loop."""

    job: str
    type: str
    seconds: float


@dataclass(frozen=True, slots=True)
class ThreadStuck(Event):
    """No interrupt ended a job's thread; its delivery ended without it."""

    job: str
    type: str
    seconds: float
