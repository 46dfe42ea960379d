"""What follows from transitions, collected in `Effects`; `perform.apply` writes and sends all of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from queues.models import Job
from queues.settlement import Settlement
from queues.states import AttemptOutcome, GroupKey


class AttemptRow(NamedTuple):
    """A row of `Attempt`; the names are those of its columns."""

    job_id: int
    number: int
    delivery: int
    outcome: str
    counted: bool
    category: str
    account: str
    status: int | None
    error: str
    traceback: str
    worker: str
    ready_at: datetime | None
    dispatched_at: datetime | None
    started_at: datetime | None
    ended_at: datetime


class StepRow(NamedTuple):
    """A row of `Transition`."""

    job_id: int
    at: datetime
    state: str
    reason: str


@dataclass(slots=True)
class Effects:
    """What follows from the transitions of one transaction."""

    attempts: list[AttemptRow] = field(default_factory=list)
    steps: list[StepRow] = field(default_factory=list)
    """Rows for the timeline."""
    dead: list[Job] = field(default_factory=list)
    """Jobs that get a dead letter."""
    ended: list[Job] = field(default_factory=list)
    """Jobs that have ended: their dependants, batches and callbacks follow."""
    ended_before: list[int] = field(default_factory=list)
    """Jobs that ended earlier: only their dependants follow."""
    batches: set[int] = field(default_factory=set)
    """Batches that may be complete, besides those of the ended jobs."""
    changed: list[Job] = field(default_factory=list)
    """Jobs whose status or reason changed: each gets a `JobChanged` event."""
    submitted: Counter[tuple[int, int]] = field(default_factory=Counter)
    """New jobs by queue and project: each pair gets a `JobsSubmitted` event."""
    appended: set[GroupKey] = field(default_factory=set)
    """Groups with new jobs at their ends."""
    requeued: set[GroupKey] = field(default_factory=set)
    """Groups into which older jobs came back."""
    wake: bool = False
    """Wake the dispatcher even if no group changed."""
    unblock: bool = False
    """Capacity may be free before its time."""
    settlements: list[Settlement] = field(default_factory=list)
    """Leases and reservations to be settled after the commit."""

    def step(self, job: Job, now: datetime, reason: str | None = None) -> None:
        """Add a row to the job's timeline: its present status, with its reason or another one."""
        self.steps.append(StepRow(job.pk, now, job.status, (job.reason if reason is None else reason)[:500]))

    def lost_attempt(self, job: Job, error: str, now: datetime) -> None:
        """Add the attempt of a delivery whose worker ended before it did; it is not counted."""
        self.attempts.append(attempt_of(job, now, AttemptOutcome.LOST, counted=False, error=error))


def clear_delivery(job: Job) -> None:
    """Clear what belongs to the job's present delivery."""
    job.worker, job.lease_until, job.account_lease, job.reservation = "", None, "", ""


def attempt_of(
    job: Job,
    now: datetime,
    outcome: str,
    *,
    counted: bool,
    category: str = "",
    account: str = "",
    status: int | None = None,
    error: str = "",
    traceback: str = "",
) -> AttemptRow:
    """The row of one attempt, which ended now; `job` still names the worker that ran it."""
    return AttemptRow(
        job_id=job.pk,
        number=job.attempts_made,
        delivery=job.delivery,
        outcome=outcome,
        counted=counted,
        category=category,
        account=account,
        status=status,
        error=error,
        traceback=traceback,
        worker=job.worker,
        ready_at=job.not_before,
        dispatched_at=job.dispatched_at,
        started_at=job.started_at,
        ended_at=now,
    )
