"""Giving back what a worker could not finish before it had to stop."""

from __future__ import annotations

from collections.abc import Sequence

from queues.deliveries import Claimed, Ended
from queues.errors import LOST
from queues.lifecycle.delivery import requeue
from queues.registry import RunResult
from queues.states import AttemptOutcome
from queues.worker.delivery_end import end
from quotas.engine.types import CallOutcome

WHY = "its worker stopped"
TOO_LARGE = "its worker grew too large"


def _interrupted(claimed: Claimed) -> RunResult:
    upstream = CallOutcome("unknown") if claimed.endpoint else None
    return RunResult(
        AttemptOutcome.LOST,
        category=LOST,
        error="Its worker stopped before it was done.",
        counted=False,
        upstream=upstream,
    )


def requeue_unfinished(claimed: Sequence[Claimed], worker: str, *, suspect: bool = False) -> int:
    """Return `claimed` to the front of their lanes; no attempt is charged. Returns how many were still this worker's.

    `suspect`: the worker had to stop, and any of them may be the cause, as with a worker that died under them.

    What asked for at most one delivery ends here as a dead letter that says so. What is to be cancelled is left alone:
    the reconciler cancels it when its lease runs out.
    """
    once = [item for item in claimed if item.job.delivery_mode == "at_most_once"]
    if once:
        end([Ended(item, _interrupted(item)) for item in once], worker)
    return requeue({item.id: item.delivery for item in claimed}, worker, TOO_LARGE if suspect else WHY, suspect=suspect)
