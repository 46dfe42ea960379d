"""Transitions of jobs that wait: accepted, due, deferred by a limit, rejected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from operator import itemgetter
from typing import Any

from django.db import connection, transaction
from django.db.models.base import ModelState

from queues.lifecycle import new_rows, sql
from queues.lifecycle.effects import Effects, apply
from queues.lifecycle.table import transition
from queues.models import Job
from queues.states import GroupKey, Stage, Status


def new_job(*, held: str, not_before: datetime | None, **fields: Any) -> Job:
    """A job that is no row yet. `held`: the reason for stage HELD (it waits for other jobs); empty for another stage."""
    fields |= {
        "status": Status.PENDING.value,
        "stage": int(Stage.HELD if held else Stage.SCHEDULED if not_before else Stage.READY),
        "not_before": not_before,
        "reason": held or ("waits for its time" if not_before else ""),
    }
    return _job_of(fields)


def restored_job(fields: Mapping[str, Any]) -> Job:
    """A job that `new_job` made and that was kept as JSON until its row is written."""
    return _job_of(fields)


_MADE = {
    field.attname: field.default
    for field in Job._meta.concrete_fields
    if field.has_default() and callable(field.default)
}
"""Defaults that are another object for each job."""
_DEFAULTS = {field.attname: field.get_default() for field in Job._meta.concrete_fields if field.attname not in _MADE}


def _job_of(fields: Mapping[str, Any]) -> Job:
    """`Job(**fields)` in a tenth of its time, which counts in a bulk. Relations are given by their columns (`queue_id`)."""
    job = Job.__new__(Job)
    job._state = ModelState()
    job.__dict__.update(_DEFAULTS)
    job.__dict__.update(fields)
    for name, make in _MADE.items():
        if name not in fields:
            job.__dict__[name] = make()
    return job


@transition(
    "accept",
    [],
    {Stage.HELD: (Status.PENDING,), Stage.SCHEDULED: (Status.PENDING,), Stage.READY: (Status.PENDING,)},
    callers="submit, intake",
    effects=["wake-up", "event"],
)
def accept(effects: Effects, jobs: Sequence[Job], rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert the rows of accepted jobs, their values as `new_rows.row_of` makes them; each job gets its `pk`. Owes an
    event, and a wake-up for what may run now or at a time."""
    new_rows.insert(jobs, rows)
    _follow_acceptance(effects, jobs)


def accept_plain(effects: Effects, job: Job, slug: str, room: new_rows.Room) -> bool:
    """`accept` for one job by one statement; False, and nothing is written, where something objects (`new_rows.insert_where_room`)."""
    if not new_rows.insert_where_room(job, slug, room):
        return False
    _follow_acceptance(effects, [job])
    return True


def _follow_acceptance(effects: Effects, jobs: Sequence[Job]) -> None:
    """What `accept` owes for jobs whose rows are written."""
    for job in jobs:
        job._state.adding = False
    effects.submitted.update(map(_place_of, (job.__dict__ for job in jobs)))
    kinds = set(map(_kind_of, (job.__dict__ for job in jobs)))
    effects.appended.update(GroupKey(*group) for stage, *group in kinds if stage == Stage.READY)
    effects.wake |= any(stage == Stage.SCHEDULED for stage, *_ in kinds)


_place_of = itemgetter("queue_id", "project_id")
_kind_of = itemgetter("stage", *GroupKey._fields)


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
