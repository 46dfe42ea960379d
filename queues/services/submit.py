"""Submits jobs. Most are plain: one statement inserts them, which is a transaction of its own on PostgreSQL.

All others are accepted step by step (`queues.services.submission`). What these functions return is in SQL, committed with
the caller's transaction, and is not lost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from django.db import IntegrityError, OperationalError, connection, transaction

from queues import config
from queues.errors import FieldError, InvalidJob
from queues.lifecycle.acceptance import Room, accept_plain
from queues.lifecycle.effects import Effects, apply
from queues.models import Job
from queues.services import queue_room
from queues.services.draft import plain_job
from queues.services.submission import Accepted, accept_specs
from queues.specs import JobSpec, read_job
from queues.transactions import is_deadlock
from quotas.models import Project


def submit(type: str, *, project: str, **fields: Any) -> Job:
    """Submit one job from Python; `fields` are those of `POST jobs`, `run_at` may be a `datetime` with its zone.
    Returns the `Job`, new or found.

    Raises `InvalidJob`, `UnknownJobType`, `QueueFull` and the other errors of this package.
    """
    if isinstance(fields.get("run_at"), datetime):
        fields["run_at"] = fields["run_at"].isoformat()
    spec = read_job(
        {"type": type, "project": project, **{name: value for name, value in fields.items() if value is not None}}
    )

    def owner() -> Project:
        found = Project.objects.filter(slug=project).first()
        if found is None:
            raise InvalidJob([FieldError("/project", f"There is no project {project!r}.")])
        return found

    return submit_one(spec, config.project_row(project), owner).job


def submit_specs(
    project: Project, specs: Sequence[JobSpec], *, pointer: str = "", pointers: Sequence[str] | None = None
) -> list[Accepted]:
    """Accept all of `specs` or none. `pointer` is where the list is in the request, `pointers` where each one is.

    Raises `InvalidJob`, `QueueFull`, `QueueTooSmall`, `QueueDraining`, `IdempotencyKeyReused`, `BatchClosed`.
    """
    job = _submit_plain(project, specs[0]) if len(specs) == 1 else None
    return [Accepted(job, created=True)] if job is not None else accept_specs(project, specs, pointer, pointers)


def submit_one(spec: JobSpec, known: Project | None, owner: Callable[[], Project]) -> Accepted:
    """Accept one job. `known`: its project as far as this process knows; `owner` looks it up and raises where there is none.

    Raises what `submit_specs` raises.
    """
    job = None if known is None else _submit_plain(known, spec)
    if job is not None:
        return Accepted(job, created=True)
    project = owner()
    if known is not None and known.pk != project.pk:
        config.correct_project_row(project)
    return accept_specs(project, [spec], "", None)[0]


def _submit_plain(project: Project, spec: JobSpec) -> Job | None:
    """The new job, committed; None where something objects or the submission is not plain.

    A plain submission is one job, now, without a batch, other jobs or `unique_for`, outside of a transaction of the
    caller's. Its statement inserts the row where nothing objects. Whatever objects, nothing is written, and `submission`
    finds the job that answers, counts the queue's jobs, or says what is wrong.
    """
    if not _is_plain(spec) or connection.in_atomic_block or not connection.get_autocommit():
        return None
    try:
        job = plain_job(project, spec)
    except InvalidJob:  # unless an earlier job answers its key
        return None
    room = queue_room.room_of_one(job.queue_id)
    if room is None or (room.lock and not _sends_several_statements()):
        return None
    try:
        accepted = _accept(job, project, room)
    except IntegrityError:  # another process used the key at the same time
        return None
    except OperationalError as error:
        if not is_deadlock(error):
            raise
        return None
    return job if accepted else None


def _sends_several_statements() -> bool:
    """Whether a text of two statements can be sent with parameters: where Django puts them into the text."""
    return not connection.features.uses_server_side_binding  # type: ignore[attr-defined]  # of PostgreSQL's back end


def _is_plain(spec: JobSpec) -> bool:
    return not (spec.after or spec.batch or spec.unique_for or spec.run_at or spec.delay or spec.held)


def _accept(job: Job, project: Project, room: Room) -> bool:
    if connection.vendor == "postgresql":
        return _insert(job, project, room)
    with transaction.atomic():  # writers of SQLite take turns at the begin of a transaction
        return _insert(job, project, room)


def _insert(job: Job, project: Project, room: Room) -> bool:
    effects = Effects()
    accepted = accept_plain(effects, job, project.slug, room)
    if accepted:
        apply(effects, job.created_at)
    return accepted
