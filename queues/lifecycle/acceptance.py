"""The transition of new jobs: builds them, and inserts their rows; many at once, or one where nothing objects.

A job brings some values; every other column has one for all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from operator import itemgetter
from typing import Any

from django.db import connection, models
from django.db.models.base import ModelState

from queues.lifecycle.effects import Effects
from queues.lifecycle.sql import MAX_PARAMETERS, array_type, quoted, read_moment, slices, written
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


@dataclass(frozen=True, slots=True)
class Room:
    """What must be true of a queue for one more job: SQL over its row `q` and the columns of `source`, if one is given."""

    condition: str
    parameters: Sequence[Any] = ()
    source: str = ""
    """A subquery, with `source_parameters`."""
    source_parameters: Sequence[Any] = ()
    lock: str = ""
    """A statement that runs before, in the same transaction and in the same round trip."""


@transition(
    "accept",
    [],
    {Stage.HELD: (Status.PENDING,), Stage.SCHEDULED: (Status.PENDING,), Stage.READY: (Status.PENDING,)},
    callers="submit, intake",
    effects=["wake-up", "event"],
)
def accept(effects: Effects, jobs: Sequence[Job], rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert the rows of accepted jobs, their values as `row_of` makes them; each job gets its `pk`. Owes an
    event, and a wake-up for what may run now or at a time."""
    _insert(jobs, rows)
    _follow_acceptance(effects, jobs)


def accept_plain(effects: Effects, job: Job, slug: str, room: Room) -> bool:
    """`accept` for one job by one statement; False, and nothing is written, where something objects."""
    if not _insert_where_room(job, slug, room):
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


# Rows of new jobs

REQUEST = (
    "uid", "project_id", "queue_id", "type", "payload", "pool", "model", "priority", "user", "keys", "cost",
    "max_attempts", "timeout", "delivery_mode", "callback_url", "idempotency_key", "request_hash", "ordering_key",
)  # fmt: skip
"""Attributes of every new job, which are named as their columns."""
_NAMES = (*REQUEST, "batch_id", "unique_key", "unique_until", "status", "stage", "not_before", "reason", "created_at")
_JSON = tuple(position for position, name in enumerate(_NAMES) if name in ("payload", "keys", "cost"))
_MOMENTS = tuple(
    position for position, name in enumerate(_NAMES) if name in ("unique_until", "not_before", "created_at")
)
_values_of = itemgetter(*_NAMES)
_request_of = itemgetter(*REQUEST)


def request_of(job: Job) -> list[Any]:
    """The values of `REQUEST`, as statements take them."""
    return _with_json(list(_request_of(job.__dict__)))


def row_of(job: Job) -> tuple[Any, ...]:
    """The values of a job that is no row yet, as `accept` takes them: converted before anything is locked."""
    values = _with_json(list(_values_of(job.__dict__)))
    if connection.vendor != "postgresql":
        for position in _MOMENTS:
            if values[position] is not None:
                values[position] = written(values[position])
    return tuple(values)


def _with_json(values: list[Any]) -> list[Any]:
    for position in _JSON:
        value = values[position]
        values[position] = json.dumps(value) if value else "{}"
    return values


def _insert(jobs: Sequence[Job], rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert new jobs, their values as `row_of` makes them, and set their keys. Inside a transaction."""
    if not rows:
        return
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            keys: dict[str, int] = {}
            for some in slices(rows, MAX_PARAMETERS):
                cursor.execute(_insert_arrays(), list(map(list, zip(*some, strict=True))))
                keys.update(cursor.fetchall())
            for job in jobs:
                job.pk = keys[job.uid]
            return
        cursor.executemany(_insert_each(), rows)
        # There is one writer at a time, and the keys of a table that counts them are in a row.
        cursor.execute("SELECT last_insert_rowid()")
        (last,) = cursor.fetchone()
    for key, job in enumerate(jobs, last - len(jobs) + 1):
        job.pk = key


@lru_cache(maxsize=1)
def _insert_each() -> str:
    columns, literals = _constants(_NAMES)
    values = ", ".join([*["%s"] * len(_NAMES), *literals])
    return f'INSERT INTO "queues_job" ({", ".join(map(quoted, (*_NAMES, *columns)))}) VALUES ({values})'  # noqa: S608


@lru_cache(maxsize=1)
def _insert_arrays() -> str:
    columns, literals = _constants(_NAMES)
    arrays = ", ".join(f"%s::{array_type(Job, name)}[]" for name in _NAMES)
    given = ", ".join(f"g_{name}" for name in _NAMES)
    return (
        f'INSERT INTO "queues_job" ({", ".join(map(quoted, (*_NAMES, *columns)))})'  # noqa: S608
        f' SELECT {", ".join((given, *literals))} FROM unnest({arrays}) AS given({given}) RETURNING "uid", "id"'
    )


_NO_SUCH_KEY = (
    ' AND NOT EXISTS (SELECT 1 FROM "queues_job" AS k WHERE k."project_id" = p."id" AND k."idempotency_key" = %s)'
    ' AND NOT EXISTS (SELECT 1 FROM "queues_answeredkey" AS a WHERE a."project_id" = p."id" AND a."key" = %s)'
    # A bulk whose rows are still being written may have the key.
    ' AND NOT EXISTS (SELECT 1 FROM "queues_intakepart" AS i WHERE i."project_id" = p."id")'
)


def _insert_where_room(job: Job, slug: str, room: Room) -> bool:
    """Insert one plain job, which waits for nothing and has no batch, by a statement that checks all that an ordinary submit reads
    before: that its project exists under the name `slug`, that its queue accepts jobs and has room, that its idempotency key is
    unused. Sets its `pk` and `created_at`; False, and nothing is written, where something objects."""
    values = request_of(job)
    key = [] if job.idempotency_key is None else [job.idempotency_key, job.idempotency_key]
    created_at = job.created_at if connection.vendor == "postgresql" else written(job.created_at)
    text = _statement_where_room(connection.vendor, room.condition, room.source, bool(key))
    values += [created_at, *room.source_parameters, job.project_id, slug, job.queue_id, *room.parameters, *key]
    with connection.cursor() as cursor:
        cursor.execute(f"{room.lock}; {text}" if room.lock else text, values)
        if room.lock:
            cursor.nextset()
        found = cursor.fetchall()
    if not found:
        return False
    job.pk, moment = found[0]
    job.created_at = read_moment(moment)
    return True


@lru_cache(maxsize=16)
def _statement_where_room(vendor: str, condition: str, source: str, has_key: bool) -> str:
    given = (*REQUEST, "created_at")
    columns, literals = _constants(given)
    moment = "coalesce(%s::timestamptz, clock_timestamp())" if vendor == "postgresql" else "%s"
    values = [*["%s"] * len(REQUEST), moment, *literals]
    joined = f" CROSS JOIN ({source}) AS state" if source else ""
    return (
        f'INSERT INTO "queues_job" ({", ".join(map(quoted, (*given, *columns)))})'  # noqa: S608
        f' SELECT {", ".join(values)} FROM "queues_queue" AS q CROSS JOIN "quotas_project" AS p{joined}'
        f' WHERE p."id" = %s AND p."slug" = %s AND q."id" = %s AND q."draining_at" IS NULL AND {condition}'
        f'{_NO_SUCH_KEY if has_key else ""} RETURNING "id", "created_at"'
    )


def _constants(given: Sequence[str]) -> tuple[list[str], list[str]]:
    """The columns that are not `given`, with their values in SQL. Those that are NULL are left out."""
    found = [
        (field.attname, _literal(field))
        for field in Job._meta.concrete_fields
        if not field.primary_key and field.attname not in given and field.get_default() is not None
    ]
    return [name for name, _ in found], [literal for _, literal in found]


def _literal(field: models.Field[Any, Any]) -> str:
    """The default of the column in SQL."""
    value = field.get_default()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, str) and value.replace("_", "").isalnum() or value == "":
        return f"'{value}'"
    raise TypeError(f"New jobs have no value for {field.attname}.")
