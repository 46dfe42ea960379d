"""Transitions of jobs that wait: accepted, due, deferred by a limit, rejected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from django.db import connection, transaction

from queues.lifecycle import sql
from queues.lifecycle.effects import Effects
from queues.lifecycle.perform import apply
from queues.lifecycle.table import transition
from queues.models import Job
from queues.states import GroupKey, Stage, Status


def new_job(*, held: str, not_before: datetime | None, **fields: Any) -> Job:
    """A job that is no row yet. `held`: the reason for stage HELD (it waits for other jobs); empty for another stage."""
    fields |= {
        "status": Status.PENDING,
        "stage": Stage.HELD if held else Stage.SCHEDULED if not_before else Stage.READY,
        "not_before": not_before,
        "reason": held or ("waits for its time" if not_before else ""),
    }
    return _job_of(fields)


def restored_job(fields: Mapping[str, Any]) -> Job:
    """A job that `new_job` made and that was kept as JSON until its row is written."""
    return _job_of(fields)


_FIELDS = Job._meta.concrete_fields
_POSITIONS = {field.attname: position for position, field in enumerate(_FIELDS)}
_MADE = [
    (_POSITIONS[field.attname], field.default) for field in _FIELDS if field.has_default() and callable(field.default)
]
"""Defaults that are another object for each job."""
_DEFAULTS = [None if (_POSITIONS[field.attname], field.default) in _MADE else field.get_default() for field in _FIELDS]


def _job_of(fields: Mapping[str, Any]) -> Job:
    """`Job(**fields)` in a third of its time, which counts in a bulk: a model takes values by position much faster than
    by name. Relations are given by their columns (`queue_id`)."""
    values = _DEFAULTS.copy()
    for name, value in fields.items():
        values[_POSITIONS[name]] = value
    for position, make in _MADE:
        if values[position] is None:
            values[position] = make()
    return Job(*values)


@transition(
    "accept",
    [],
    {Stage.HELD: (Status.PENDING,), Stage.SCHEDULED: (Status.PENDING,), Stage.READY: (Status.PENDING,)},
    callers="submit, intake",
    effects=["wake-up", "event"],
)
def accept(effects: Effects, jobs: Sequence[Job], rows: Sequence[tuple[Any, ...]], *, keys: bool) -> None:
    """Insert the rows of accepted jobs, their values as `sql.row_of` makes them; with `keys` each job gets its `pk`. Owes an
    event, and a wake-up for what may run now or at a time."""
    if keys and len(jobs) == 1:
        jobs[0].pk = sql.insert_one(rows[0])
    else:
        sql.insert(rows)
        if keys:
            sql.read_keys(jobs)
    follow_acceptance(effects, jobs)


def follow_acceptance(effects: Effects, jobs: Sequence[Job]) -> None:
    """What `accept` owes for jobs whose rows are written."""
    for job in jobs:
        job._state.adding = False
    effects.submitted.update((job.queue_id, job.project_id) for job in jobs)
    effects.appended.update(job.group for job in jobs if job.stage == Stage.READY)
    effects.wake |= any(job.stage == Stage.SCHEDULED for job in jobs)


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
