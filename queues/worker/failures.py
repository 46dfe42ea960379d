"""Results of deliveries that their job types could not end: interrupted, lost, returned, not started."""

from __future__ import annotations

from queues.deliveries import Claimed
from queues.registry import RunResult
from queues.states import AttemptOutcome
from quotas.engine.types import CallOutcome


def code_failure(claimed: Claimed, error: str, trace: str = "") -> RunResult:
    """A failed attempt whose cause is the task's code. Whether its account was called is not known."""
    return RunResult(
        AttemptOutcome.FAILED, category="code", error=error, traceback=trace, upstream=unknown_call(claimed)
    )


def timed_out(claimed: Claimed) -> RunResult:
    """The job's own deadline: what its account's provider would have answered later is not known."""
    error = f"Not done within {claimed.context.timeout:g} s."
    return RunResult(AttemptOutcome.FAILED, category="timeout", error=error, upstream=unknown_call(claimed))


def cancelled(claimed: Claimed) -> RunResult:
    """Interrupted, since its job is cancelled."""
    return RunResult(
        AttemptOutcome.CANCELLED, error="Cancelled while it ran.", counted=False, upstream=unknown_call(claimed)
    )


def process_lost(claimed: Claimed, error: str) -> RunResult:
    """Its process has ended, and nothing else could have caused that."""
    return RunResult(AttemptOutcome.LOST, category="poison", error=error, counted=False, upstream=unknown_call(claimed))


def returned_to_others(why: str, upstream: CallOutcome | None = None) -> RunResult:
    """This process lacks what the job needs (it may have started before a deployment): another one may have it."""
    return RunResult(AttemptOutcome.LOST, category="code", error=why, counted=False, upstream=upstream, returned=True)


def unknown_type(claimed: Claimed) -> RunResult:
    """The job's type is not registered in this process."""
    job = claimed.job
    return returned_to_others(f"No job type {job.type!r} is known to the worker {job.worker}.", unused_call(claimed))


def without_account(error: str) -> RunResult:
    """What the job needs of a pool was removed between admission and start: it is requeued, and waits for another."""
    return RunResult(AttemptOutcome.RATE_LIMITED, category="rate_limited", error=error, counted=False)


def unknown_call(claimed: Claimed) -> CallOutcome | None:
    """The outcome of a call that may have been made."""
    return CallOutcome("unknown") if claimed.endpoint else None


def unused_call(claimed: Claimed) -> CallOutcome | None:
    """The outcome of a call that was not made."""
    return CallOutcome("unused") if claimed.endpoint else None
