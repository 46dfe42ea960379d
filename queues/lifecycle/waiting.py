"""Transitions of jobs that wait: due, deferred by a limit, rejected."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from django.db import connection, transaction

from queues.lifecycle import sql
from queues.lifecycle.effects import Effects, apply
from queues.lifecycle.table import transition
from queues.models import Job
from queues.states import GroupKey, Stage, Status


def first_due() -> datetime | None:
    """When the first scheduled job is due; None where none is scheduled."""
    with connection.cursor() as cursor:
        cursor.execute(f'SELECT min("not_before") FROM "queues_job" WHERE "stage" = {int(Stage.SCHEDULED)}')  # noqa: S608
        (found,) = cursor.fetchone()
    return None if found is None else sql.read_moment(found)


@transition(
    "promote", [Stage.SCHEDULED], {Stage.READY: ()}, callers="dispatcher", effects=["the dispatcher reads the group"]
)
def promote(now: datetime, count: int) -> set[GroupKey]:
    """Make up to `count` scheduled jobs ready whose time has come; the status stays. Returns their groups, which the
    dispatcher, the only caller, reads again; so no wake-up is owed. Inside a transaction."""
    due = list(
        Job.objects.filter(stage=Stage.SCHEDULED, not_before__lte=now)
        .order_by("not_before")
        .values_list("id", "queue_id", "priority", "project_id", "pool")[:count]
    )
    Job.objects.filter(id__in=[row[0] for row in due], stage=Stage.SCHEDULED).update(stage=Stage.READY)
    return {GroupKey(*row[1:]) for row in due}


@transition(
    "defer", [Stage.READY], {Stage.READY: (Status.RATE_LIMITED,)}, callers="dispatcher", effects=["timeline", "event"]
)
def defer(reasons: Mapping[int, tuple[str, str]], now: datetime) -> None:
    """Write on ready jobs which limit they wait for: {job: (what binds, until when)}. Only a job whose limit changed is
    written. Owes a row of the timeline and an event."""
    with transaction.atomic():
        rows = (
            Job.objects.filter(id__in=list(reasons), stage=Stage.READY)
            .order_by("id")
            .select_for_update()
            .only("id", "uid", "type", "queue_id", "project_id", "status", "reason")
        )
        effects = Effects()
        for job in rows:
            what, until = reasons[job.pk]
            if job.status == Status.RATE_LIMITED and job.reason.startswith(what):
                continue
            job.status, job.reason = Status.RATE_LIMITED, f"{what}{until}"[:500]
            effects.step(job, now)
            effects.changed.append(job)
        if effects.changed:
            Job.objects.bulk_update(effects.changed, ["status", "reason"])
            apply(effects, now)


@transition(
    "reject",
    [Stage.READY],
    {Stage.DONE: (Status.DEAD,)},
    callers="dispatcher",
    effects=["dead letter", "dependants", "batch", "callback"],
)
def reject(job_id: int, error: str, now: datetime) -> None:
    """Give up a ready job that no wait would help. Owes a dead letter `validation` and what every end owes; the dead
    letter's event stands for the job's."""
    job = Job.objects.select_for_update().filter(pk=job_id, stage=Stage.READY).first()
    if job is None:
        return
    job.stage, job.status, job.category, job.error, job.reason, job.finished_at = (
        Stage.DONE, Status.DEAD, "validation", error, error, now,
    )  # fmt: skip
    job.save(update_fields=["stage", "status", "category", "error", "reason", "finished_at"])
    apply(Effects(dead=[job], ended=[job]), now)
