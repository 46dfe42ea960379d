"""Requeues the deliveries that a worker could not finish before it had to stop."""

from __future__ import annotations

from collections.abc import Sequence

from queues.deliveries import Claimed, Ended
from queues.lifecycle.loss import requeue
from queues.registry import RunResult
from queues.states import AttemptOutcome
from queues.worker.completer import complete
from queues.worker.failures import unknown_call
from quotas.engine.categories import Category

STOPPED = "its worker stopped"
TOO_LARGE = "its worker grew too large"


def _interrupted(claimed: Claimed) -> RunResult:
    return RunResult(
        AttemptOutcome.LOST,
        category=Category.LOST.value,
        error="Its worker stopped before it was done.",
        counted=False,
        upstream=unknown_call(claimed),
    )


def requeue_unfinished(claimed: Sequence[Claimed], worker: str, *, suspect: bool = False) -> int:
    """Return `claimed` to the front of their groups; no attempt is charged. Returns how many were still this worker's.

    `suspect`: any of them may be why the worker had to stop, so they run alone next time.

    At-most-once jobs die here. Jobs with a cancel request are skipped: the reconciler cancels them when their claims
    expire.
    """
    once = [item for item in claimed if item.job.delivery_mode == "at_most_once"]
    if once:
        complete([Ended(item, _interrupted(item)) for item in once], worker)
    return requeue(
        {item.id: item.delivery for item in claimed}, worker, TOO_LARGE if suspect else STOPPED, suspect=suspect
    )
