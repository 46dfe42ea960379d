"""Submits one plain job in one statement, which is a transaction of its own on PostgreSQL.

Most submits are plain: one job, now, without a batch, other jobs or `unique_for`. Their statement inserts the row where
nothing objects. Whatever objects, nothing is written, and `submit` looks at the submission step by step: it finds the job that
answers, counts the queue's jobs, or says what is wrong.
"""

from __future__ import annotations

from django.db import IntegrityError, OperationalError, connection, transaction

from queues.errors import InvalidJob
from queues.lifecycle.effects import Effects, apply
from queues.lifecycle.new_rows import Room
from queues.lifecycle.waiting import accept_plain
from queues.models import Job
from queues.services import queue_room
from queues.services.draft import plain_job
from queues.specs import JobSpec
from queues.sql import is_deadlock
from quotas.models import Project


def submit_plain(project: Project, spec: JobSpec) -> Job | None:
    """The new job, committed; None where something objects or the submission is not plain."""
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
