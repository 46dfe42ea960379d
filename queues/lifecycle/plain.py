"""Accepts one plain job by one statement, which inserts the row only where nothing objects.

A plain job waits for nothing and has no batch. The statement checks what an ordinary submit reads statement by statement:
that the project exists, that the queue accepts jobs and has room, that the idempotency key is unused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from typing import Any

from django.db import connection, models

from queues.lifecycle.effects import Effects
from queues.lifecycle.sql import quoted, read_moment
from queues.lifecycle.waiting import follow_acceptance
from queues.models import Job
from queues.sql import written
from queues.states import Stage, Status

_GIVEN = (
    "uid", "project_id", "queue_id", "type", "payload", "pool", "model", "priority", "user", "keys", "cost",
    "max_attempts", "timeout", "delivery_mode", "callback_url", "idempotency_key", "request_hash", "ordering_key",
)  # fmt: skip
"""Attributes whose values each job brings; `created_at` is given, or the database's time."""
_JSON = tuple(position for position, name in enumerate(_GIVEN) if name in ("payload", "keys", "cost"))
_FIXED: Mapping[str, Any] = {"status": Status.PENDING.value, "stage": int(Stage.READY)}
_values_of = attrgetter(*_GIVEN)


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


_NO_SUCH_KEY = (
    ' AND NOT EXISTS (SELECT 1 FROM "queues_job" AS k WHERE k."project_id" = p."id" AND k."idempotency_key" = %s)'
    ' AND NOT EXISTS (SELECT 1 FROM "queues_answeredkey" AS a WHERE a."project_id" = p."id" AND a."key" = %s)'
    # A bulk whose rows are still being written may have the key.
    ' AND NOT EXISTS (SELECT 1 FROM "queues_intakepart" AS i WHERE i."project_id" = p."id")'
)


def accept_plain(effects: Effects, job: Job, slug: str, room: Room) -> bool:
    """Insert the row of `job` and set its `pk` and `created_at`; False, and nothing is written, where something objects. `slug`
    is its project's. Part of the transition `accept`, with its effects."""
    values = list(_values_of(job))
    for position in _JSON:
        values[position] = "{}" if not values[position] else json.dumps(values[position])
    key = [] if job.idempotency_key is None else [job.idempotency_key, job.idempotency_key]
    created_at = job.created_at if connection.vendor == "postgresql" else written(job.created_at)
    text = _statement(connection.vendor, room.condition, room.source, bool(key))
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
    follow_acceptance(effects, [job])
    return True


@lru_cache(maxsize=16)
def _statement(vendor: str, condition: str, source: str, has_key: bool) -> str:
    columns = [*_GIVEN, "created_at"]
    values = ["%s"] * len(_GIVEN)
    values.append("coalesce(%s::timestamptz, clock_timestamp())" if vendor == "postgresql" else "%s")
    for field in Job._meta.concrete_fields:
        literal = None if field.primary_key or field.attname in columns else _literal(field)
        if literal is not None:
            columns.append(field.attname)
            values.append(literal)
    joined = f" CROSS JOIN ({source}) AS state" if source else ""
    return (
        f'INSERT INTO "queues_job" ({", ".join(map(quoted, columns))})'  # noqa: S608
        f' SELECT {", ".join(values)} FROM "queues_queue" AS q CROSS JOIN "quotas_project" AS p{joined}'
        f' WHERE p."id" = %s AND p."slug" = %s AND q."id" = %s AND q."draining_at" IS NULL AND {condition}'
        f'{_NO_SUCH_KEY if has_key else ""} RETURNING "id", "created_at"'
    )


def _literal(field: models.Field[Any, Any]) -> str | None:
    """The value of every plain job in this column, in SQL; None: NULL."""
    value = _FIXED[field.attname] if field.attname in _FIXED else field.get_default()
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if value == "" or value in Status.values:
        return f"'{value}'"
    raise TypeError(f"A plain job has no value for {field.attname}.")
