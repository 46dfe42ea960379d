"""Value objects of a delivery: claimed by a worker, and ended with a result."""

from __future__ import annotations

from dataclasses import dataclass

from queues.models import Job
from queues.registry import JobContext, RunResult
from quotas.upstream.endpoint import AccountEndpoint


@dataclass(frozen=True, slots=True)
class Claimed:
    """One delivery that this worker runs: the row as it was claimed, and what its run needs."""

    job: Job
    context: JobContext
    endpoint: AccountEndpoint | None
    id: int
    """The job's key."""
    delivery: int
    """The fencing number."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A claimed delivery with its result."""

    claimed: Claimed
    result: RunResult
