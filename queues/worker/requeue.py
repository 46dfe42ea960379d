"""Giving back what a worker could not finish before it had to stop."""

from __future__ import annotations

from collections.abc import Sequence

from django.db import transaction
from django.db.models import F

from queues.connection import ring
from queues.errors import LOST
from queues.models import Attempt, Job, Transition
from queues.registry import RunResult, is_suspect
from queues.settlement import settle_engine
from queues.states import IN_FLIGHT_STAGES, Outcome, Stage, Status
from queues.worker.claim import Claimed
from queues.worker.delivery_end import end
from queues.worker.settle import Ended
from quotas import clock
from quotas.engine.types import CallOutcome as Upstream

WHY = "its worker stopped"
TOO_LARGE = "its worker grew too large"


def _interrupted(claimed: Claimed) -> RunResult:
    upstream = Upstream("unknown") if claimed.endpoint else None
    return RunResult(
        Outcome.LOST, category=LOST, error="Its worker stopped before it was done.", counted=False, upstream=upstream
    )


def hand_back(claimed: Sequence[Claimed], worker: str, *, suspect: bool = False) -> int:
    """Return `claimed` to the front of their lanes; no attempt is charged. Returns how many were still this worker's.

    `suspect`: the worker had to stop, and any of them may be the cause, as with a worker that died under them.

    What asked for at most one delivery ends here as a dead letter that says so. What is to be cancelled is left alone:
    the reconciler cancels it when its lease runs out.
    """
    once = [item for item in claimed if item.job.delivery_mode == "at_most_once"]
    if once:
        end([Ended(item, _interrupted(item)) for item in once], worker)
    by_id = {item.id: item for item in claimed}
    with transaction.atomic():
        rows = [
            job
            for job in Job.objects.filter(
                id__in=by_id, stage__in=IN_FLIGHT_STAGES, stage=Stage.RUNNING, worker=worker, cancel_requested_at=None
            )
            .exclude(delivery_mode="at_most_once")
            .order_by("id")
            .select_for_update()
            if job.delivery == by_id[job.pk].delivery
        ]
        now, why = clock.now(), TOO_LARGE if suspect else WHY
        Job.objects.filter(id__in=[job.pk for job in rows]).update(
            stage=Stage.READY, status=Status.PENDING, reason=why, worker="", lease_until=None, account_lease="",
            reservation="", losses=F("losses") + int(suspect), not_before=now,
        )  # fmt: skip
        blamed = [job.pk for job in rows if suspect and is_suspect(job.type, job.losses + 1)]
        Job.objects.filter(id__in=blamed).update(suspect=True)
        Attempt.objects.bulk_create(
            [
                Attempt(
                    job=job,
                    number=job.attempts_made,
                    delivery=job.delivery,
                    outcome=Outcome.LOST,
                    counted=False,
                    error="Its worker stopped before it was done.",
                    worker=worker,
                    dispatched_at=job.dispatched_at,
                    started_at=job.started_at,
                    ended_at=now,
                )  # fmt: skip
                for job in rows
            ]
        )
        Transition.objects.bulk_create([Transition(job=job, at=now, state=Status.PENDING, reason=why) for job in rows])
        back = {(job.queue_id, job.priority, job.project_id, job.pool) for job in rows}
        transaction.on_commit(lambda: ring(back, again=True, unblock=True))
    lost = RunResult(Outcome.LOST, counted=False, upstream=Upstream("unknown"))
    settle_engine([Ended(by_id[job.pk], lost) for job in rows])
    return len(rows)
