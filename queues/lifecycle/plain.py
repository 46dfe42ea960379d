"""Accepts one plain job by one statement, which inserts the row only where nothing objects.

A plain job waits for nothing and has no batch. The statement checks what an ordinary submit reads statement by statement:
that the project exists, that the queue accepts jobs and has room, that the idempotency key is unused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from django.db import connection

from queues.lifecycle.effects import Effects
from queues.lifecycle.new_rows import REQUEST, constants, request_of
from queues.lifecycle.sql import quoted, read_moment
from queues.lifecycle.waiting import follow_acceptance
from queues.models import Job
from queues.sql import written


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
    values = request_of(job)
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
    given = (*REQUEST, "created_at")
    columns, literals = constants(given)
    moment = "coalesce(%s::timestamptz, clock_timestamp())" if vendor == "postgresql" else "%s"
    values = [*["%s"] * len(REQUEST), moment, *literals]
    joined = f" CROSS JOIN ({source}) AS state" if source else ""
    return (
        f'INSERT INTO "queues_job" ({", ".join(map(quoted, (*given, *columns)))})'  # noqa: S608
        f' SELECT {", ".join(values)} FROM "queues_queue" AS q CROSS JOIN "quotas_project" AS p{joined}'
        f' WHERE p."id" = %s AND p."slug" = %s AND q."id" = %s AND q."draining_at" IS NULL AND {condition}'
        f'{_NO_SUCH_KEY if has_key else ""} RETURNING "id", "created_at"'
    )
