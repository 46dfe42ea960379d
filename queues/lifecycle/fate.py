"""Decides where a job goes after the result of one delivery. Pure: it reads the job, the result and the time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from queues import config
from queues.models import Job
from queues.registry import RunResult
from queues.retry import LEAST_WAIT, limited_delay, next_delay
from queues.states import AttemptOutcome, Stage, Status


@dataclass(slots=True)
class Fate:
    """Where a job goes next."""

    stage: Stage
    status: Status
    reason: str = ""
    not_before: datetime | None = None
    final: bool = False


def decide(job: Job, result: RunResult, now: datetime, *, cancelled: str) -> Fate:
    """Where a job goes after `result`; `job` has its counters as they were before. `cancelled`: by whom and why; empty
    if it was not requested."""
    if result.outcome == AttemptOutcome.SUCCEEDED:
        return Fate(Stage.DONE, Status.COMPLETED, final=True)
    if cancelled or result.outcome == AttemptOutcome.CANCELLED:
        return Fate(Stage.DONE, Status.CANCELLED, f"{cancelled or 'cancelled'}, while it ran", final=True)
    if result.returned:
        return _fate_of_returned(job, result, now)
    if result.outcome == AttemptOutcome.LOST:
        return _fate_of_lost(job, result)
    if result.category == "auth" and job.refused_by is not None:
        return Fate(Stage.DONE, Status.DEAD, f"two accounts were refused; auth: {result.error}"[:500], final=True)
    if not result.counted and result.category == "auth":
        return Fate(Stage.READY, Status.PENDING, f"another account will do it; {result.category}: {result.error}"[:500])
    if not result.counted:
        return _fate_of_limited(job, result, now)
    if job.delivery_mode == "at_most_once":
        reason = f"{result.category}: {result.error}"[:420]
        return Fate(Stage.DONE, Status.DEAD, f"{reason}; it is delivered at most once", final=True)
    if result.final:
        return Fate(Stage.DONE, Status.DEAD, f"{result.category}: {result.error}"[:500], final=True)
    policy = config.current().queues[job.queue_id].retry
    failures = job.attempts_counted + 1
    delay = next_delay(policy, result.category, failures, max_attempts=job.max_attempts, hint=result.retry_after)
    if delay is None:
        return Fate(Stage.DONE, Status.DEAD, f"{result.category}: {result.error}"[:500], final=True)
    reason = f"{result.category}: {result.error}"[:420]
    return Fate(
        Stage.SCHEDULED, Status.RETRYING, f"{reason}; attempt {failures + 1} of {job.max_attempts} in {delay:.1f} s",
        now + timedelta(seconds=delay),
    )  # fmt: skip


def _fate_of_limited(job: Job, result: RunResult, now: datetime) -> Fate:
    """It met a limit or a dead account. With an account it goes back into its group, where admission knows how long the
    limit lasts. Without one, or after many limits in a row, it waits for a time of its own: a limit that admission does
    not see must not make it run without a pause."""
    reason = f"{result.category}: {result.error}"
    meetings = job.attempts_made - job.attempts_counted
    if job.account_lease and meetings <= MEETINGS_AT_ONCE:
        return Fate(Stage.READY, Status.RATE_LIMITED, reason[:500])
    if job.account_lease:
        delay = LEAST_WAIT
    else:
        policy = config.current().queues[job.queue_id].retry
        delay = limited_delay(policy, result.category, meetings, hint=result.retry_after)
    at = now + timedelta(seconds=delay)
    return Fate(Stage.SCHEDULED, Status.RATE_LIMITED, f"{reason[:420]}, until {at:%Y-%m-%dT%H:%M:%SZ}", at)


MEETINGS_AT_ONCE = 10
"""Limits that a job with an account may meet, one account after the other, before it waits a moment each time."""


MAX_DEATHS = 2
"""Forked processes that may crash under a job before it is given up as poison."""


MAX_LOST = 20
"""Workers that may be lost with a job before it is given up as poison, for whatever reason: a job also ends if each
time the parent process dies or only its claim expires."""


MAX_RETURNS = 20
"""Workers that may return a job because they don't know its type; with the waits in between, some 15 minutes."""
LONGEST_RETURN = 60.0


def _fate_of_returned(job: Job, result: RunResult, now: datetime) -> Fate:
    """Another worker may know its type: during a deployment some are newer than others. One with a free slot may run it
    at once."""
    if result.no_slot:
        return Fate(Stage.READY, Status.PENDING, result.error[:500])
    if job.returns + 1 >= MAX_RETURNS:
        return Fate(Stage.DONE, Status.DEAD, f"{result.error} So it was {job.returns + 1} times."[:500], final=True)
    wait = min(2.0**job.returns, LONGEST_RETURN)
    return Fate(
        Stage.SCHEDULED, Status.PENDING, f"{result.error} It is tried again in {wait:g} s."[:500],
        now + timedelta(seconds=wait),
    )  # fmt: skip


def _fate_of_lost(job: Job, result: RunResult) -> Fate:
    """Its process crashed, in which nothing else ran: the job is the cause. Or it may be delivered once only, and its
    worker had to stop."""
    if job.delivery_mode == "at_most_once":
        return Fate(Stage.DONE, Status.DEAD, f"{result.error} It is delivered at most once."[:500], final=True)
    if job.deaths + 1 >= MAX_DEATHS:
        return Fate(Stage.DONE, Status.DEAD, f"its process died {job.deaths + 1} times", final=True)
    return Fate(Stage.READY, Status.PENDING, "its process died; it runs once more, alone")
