"""The job types: what a name means, which payload it takes, how it is run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from queues.errors import FieldError


@dataclass(slots=True)
class JobContext:
    """What a running job knows of itself. Handed to every job type as its first argument."""

    id: str
    project: str
    queue: str
    user: str
    keys: Mapping[str, str]
    attempt: int
    """Number of this attempt, from 1, rising for ever."""
    max_attempts: int
    timeout: float
    """Seconds."""
    idempotency_key: str
    """What upstream calls carry, so that a repeated delivery is told from a new request."""
    lease: Any = None
    """The account's lease (`queues.worker.lease.JobLease`) where the job goes through a pool."""
    actual: dict[str, int] = field(default_factory=dict)
    """Set by the job where it knows its true use: units that replace the estimate."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """How an attempt ended. `category` is empty on success; `retry_after` in seconds is the server's own hint.

    `counted` is False where the attempt met a limit or a dead account, so that it is no failure of the job.
    """

    outcome: str
    result: Any = None
    category: str = ""
    error: str = ""
    traceback: str = ""
    status: int | None = None
    retry_after: float | None = None
    counted: bool = True
    upstream: Any = None
    """`quotas.engine.types.Outcome` for the account, where one was used."""
    actual: Mapping[str, int] = field(default_factory=dict)
    returned: bool = False
    """It was not even begun, since this worker can't; another one may."""
    final: bool = False
    """No retry helps, whatever the policy says."""


class JobType(Protocol):
    """One kind of work."""

    name: str
    queue: str | None
    """The queue of jobs that name none."""
    needs_pool: bool
    """Whether it can't run without an account of a pool."""
    trusted: bool
    """True where no user's code runs, so that a lost worker is not held against the job at once."""

    def validate(self, payload: Mapping[str, Any], pointer: str) -> list[FieldError]:
        """What is wrong with a payload, before it is accepted."""

    def pool(self, payload: Mapping[str, Any]) -> str | None:
        """The pool whose account it needs, or None."""

    def model(self, payload: Mapping[str, Any]) -> str:
        """Which of the provider's models it asks for, empty where that can't be told."""

    def cost(self, payload: Mapping[str, Any]) -> Mapping[str, int]:
        """Estimated units where the caller gave none."""

    def run(self, job: JobContext, payload: Mapping[str, Any]) -> RunResult:
        """Do it. What it raises becomes a failed attempt."""


_types: dict[str, JobType] = {}


def register(job_type: JobType) -> None:
    """Make a type known; the same name registered anew replaces it (a reloaded module)."""
    _types[job_type.name] = job_type


def unregister(name: str) -> JobType:
    """Remove a type from this process and return it. Raises KeyError where it is not registered."""
    return _types.pop(name)


def registered() -> dict[str, JobType]:
    """A copy of the registered types, by name."""
    return dict(_types)


def restore(types: Mapping[str, JobType]) -> None:
    """Replace all registered types by these: what `registered` returned before."""
    before = dict(types)
    _types.clear()
    _types.update(before)


def get(name: str) -> JobType | None:
    return _types.get(name)


def needs_pool(name: str) -> bool:
    """Whether jobs of the type can't run without an account; no, where this process does not know the type."""
    job_type = get(name)
    return job_type is not None and job_type.needs_pool


def names() -> list[str]:
    return sorted(_types)


REDACTED = "[redacted]"


def redacted(name: str, payload: Mapping[str, Any]) -> dict[str, Any]:
    """The payload without the members that its type hides. Where this process does not know the type, nobody can say
    which these are, and all of them are hidden."""
    job_type = get(name)
    hidden = payload.keys() if job_type is None else getattr(job_type, "redact", ())
    return {member: REDACTED if member in hidden else value for member, value in payload.items()}


MAX_LOSSES = 2
"""Lost deliveries after which even a trusted type runs alone."""


def is_suspect(name: str, losses: int) -> bool:
    """Whether a job of this type may be what took its worker down, after so many workers that it was lost with."""
    job_type = get(name)
    return job_type is None or not job_type.trusted or losses >= MAX_LOSSES
