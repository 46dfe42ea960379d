"""Giving up jobs that no wait would help: their cost is greater than a limit's whole capacity."""

from __future__ import annotations

from django.db import transaction

from queues.dispatcher.candidate import Candidate
from queues.dispatcher.leader import Leader
from queues.models import Job
from queues.services import dead_letters
from queues.states import Stage, Status
from queues.worker.settle import close
from quotas import clock
from quotas.engine.types import Admission


def refuse(leader: Leader, candidate: Candidate, admission: Admission) -> None:
    """Make a dead letter `validation` of a job that can never be admitted."""
    error = f"Its cost is greater than {admission.binding} ever allows, so no wait would help."
    with transaction.atomic():
        leader.fence()
        job = Job.objects.select_for_update().filter(pk=candidate.id, stage=Stage.READY).first()
        if job is None:
            return
        now = clock.now()
        job.stage, job.status, job.category, job.error, job.reason, job.finished_at = (
            Stage.DONE, Status.DEAD, "validation", error, error, now,
        )  # fmt: skip
        job.save(update_fields=["stage", "status", "category", "error", "reason", "finished_at"])
        dead_letters.write([job], now)
        close([job], now)
