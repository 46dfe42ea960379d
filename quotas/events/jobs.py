"""Jobs and their queues."""

from __future__ import annotations

from dataclasses import dataclass

from quotas.events.bus import Event


@dataclass(frozen=True, slots=True)
class JobsSubmitted(Event):
    """New jobs of a project are in a queue."""

    queue: str
    count: int


@dataclass(frozen=True, slots=True)
class JobChanged(Event):
    """A job went to another status."""

    job: str
    queue: str
    type: str
    status: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class JobDied(Event):
    """A job was given up and is a dead letter now."""

    job: str
    queue: str
    type: str
    letter: str
    category: str
    severity: str
    is_ignored: bool = False
    """Whether operators ignore this failure now: it raises no alert and no notice."""


@dataclass(frozen=True, slots=True)
class JobUnresolvable(Event):
    """A ready job needs a pool or a project that was removed."""

    job: str
    missing: str


@dataclass(frozen=True, slots=True)
class JobsRequeued(Event):
    """A worker that stops returned the jobs that it could not finish."""

    worker: str
    jobs: int


@dataclass(frozen=True, slots=True)
class JobsPruned(Event):
    """Retention deleted ended jobs."""

    jobs: int


@dataclass(frozen=True, slots=True)
class ClaimsExpired(Event):
    """Workers were lost, and their jobs taken from them."""

    jobs: int


@dataclass(frozen=True, slots=True)
class ParcelsRecovered(Event):
    """Jobs whose parcels were on no belt were released again."""

    jobs: int


@dataclass(frozen=True, slots=True)
class ParcelsRemoved(Event):
    """Parcels that lost workers had taken were removed from Redis."""

    parcels: int


@dataclass(frozen=True, slots=True)
class DeadlockRetried(Event):
    """The database ended a transaction to resolve a deadlock; it is repeated."""

    act: str
    attempt: int


@dataclass(frozen=True, slots=True)
class CallbackGivenUp(Event):
    """A callback was not delivered at any of its tries."""

    callback: str
    error: str


@dataclass(frozen=True, slots=True)
class RecurringJobRefused(Event):
    """A recurring job could not be submitted at its time."""

    name: str
    error: str


@dataclass(frozen=True, slots=True)
class QueueChanged(Event):
    """A queue was paused, resumed or drained, by an operator or by a threshold."""

    queue: str
    state: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class CapacityExhausted(Event):
    """The system could start no thread or no process for a job; another worker gets it."""

    job: str
    what: str
    error: str
