"""Writes the rows of an accepted bulk, a part at a time.

The transaction that accepts a bulk stores its jobs as a few parts, which takes milliseconds. From its commit on the
whole bulk is accepted: the same process writes the rows and then answers. If it dies, the leading dispatcher writes the
rest. Until then the jobs of a part count as waiting, and its keys as used.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from operator import itemgetter
from typing import Any

from django.db import connection, transaction

from queues.errors import QueueError
from queues.lifecycle.acceptance import accept, restored_job, row_of
from queues.lifecycle.effects import Effects, apply
from queues.lifecycle.sql import slices
from queues.models import Batch, IntakePart, Job
from queues.services import idempotency, links
from queues.services.draft import Draft
from queues.transactions import in_turns, retry_after_deadlock
from quotas.models import Project

PART_SIZE = 100
"""Jobs in a part, and the fewest for which parts are made."""
PART_PAUSE = 0.001
"""Seconds between two parts, in which other transactions can write: twice as long as the pause between their tries."""
ORPHANED = timedelta(seconds=5)
"""Older parts have lost the process that accepted them."""
AT_ONCE = 5
"""Orphaned parts written at a time, so that the dispatcher is not delayed."""
_COLUMNS = (
    "uid", "queue_id", "type", "payload", "pool", "model", "priority", "user", "keys", "cost", "max_attempts", "timeout",
    "delivery_mode", "callback_url", "idempotency_key", "request_hash", "unique_key", "unique_until", "status", "stage",
    "ordering_key", "not_before", "created_at", "reason",
)  # fmt: skip
_values_of = itemgetter(*_COLUMNS)
_TIMES = [position for position, name in enumerate(_COLUMNS) if name in ("unique_until", "not_before", "created_at")]


class StillInIntake(QueueError):
    """A key of this request belongs to a job of a bulk whose rows are still being written."""


def serialise(drafts: Iterable[Draft | None]) -> None:
    """Make the texts of drafts that `write` is to store, before anything is locked."""
    for draft in drafts:
        if draft is not None:
            draft.text = _text_of(draft.job)


@dataclass(slots=True)
class Part:
    """Some jobs of a bulk: the row that promises them, and the same jobs as drafts."""

    row: IntakePart
    drafts: Sequence[Draft]


def parts_of(project: Project, drafts: Sequence[Draft]) -> list[Part]:
    """The parts of a bulk. They get their batch and their time when they are written."""
    return [
        Part(
            IntakePart(
                project=project,
                count=len(some),
                queues=Counter(str(draft.job.queue_id) for draft in some),
                pools=sorted({draft.job.pool for draft in some if draft.job.pool}),
                names=_names(some),
                rows=_text_of_part(some),
            ),
            some,
        )
        for some in slices(drafts, PART_SIZE)
    ]


def write(parts: Sequence[Part], batch: Batch, now: datetime) -> None:
    """Accept the parts, inside the transaction that accepts their bulk."""
    for part in parts:
        part.row.batch, part.row.created_at = batch, now
    IntakePart.objects.bulk_create(part.row for part in parts)


def _names(drafts: Sequence[Draft]) -> list[str]:
    """Keys that another submission may use only after these jobs are rows."""
    found = [name for draft in drafts for name in (draft.job.idempotency_key, draft.job.unique_key) if name]
    return found + [key for draft in drafts for key, _ in draft.keys]


def _text_of_part(drafts: Sequence[Draft]) -> str:
    beside = json.dumps([[list(draft.after), draft.keys] for draft in drafts])
    return f"[[{','.join(draft.text or _text_of(draft.job) for draft in drafts)}],{beside}]"


def _text_of(job: Job) -> str:
    """A job that is no row yet, as JSON."""
    values = list(_values_of(job.__dict__))
    for position in _TIMES:
        if values[position] is not None:
            values[position] = values[position].isoformat()
    return json.dumps(values)


def _job(values: Sequence[Any]) -> Job:
    fields = dict(zip(_COLUMNS, values, strict=True))
    for position in _TIMES:
        name = _COLUMNS[position]
        if fields[name] is not None:
            fields[name] = datetime.fromisoformat(fields[name])
    return restored_job(fields)


def check_free(project: Project, names: Collection[str]) -> None:
    """Raises `StillInIntake` where one of the keys belongs to a job that is not a row yet."""
    asked = frozenset(names)
    for taken in IntakePart.objects.filter(project=project).values_list("names", flat=True):
        if not asked.isdisjoint(taken):
            raise StillInIntake()


def finish(parts: Mapping[str, Any]) -> None:
    """Write the rows of all parts that match, one part after the other."""
    for pk in IntakePart.objects.filter(**parts).order_by("pk").values_list("pk", flat=True):
        if _turn_into_rows(pk):
            time.sleep(PART_PAUSE)


def finish_own(parts: Iterable[Part]) -> None:
    """The same for parts that this process has written, whose jobs it need not read again."""
    for part in parts:
        for draft in part.drafts:
            draft.job.batch_id = part.row.batch_id
        if _turn_into_rows(part.row.pk, part):
            time.sleep(PART_PAUSE)


def finish_orphans(now: datetime) -> None:
    """Write the rows of parts whose process has died."""
    orphans = IntakePart.objects.filter(created_at__lt=now - ORPHANED).order_by("pk").values_list("pk", flat=True)
    for pk in orphans[:AT_ONCE]:
        _turn_into_rows(pk)


@retry_after_deadlock
def _turn_into_rows(part_id: int, own: Part | None = None) -> bool:
    """False if another process did it."""
    part = own.row if own else IntakePart.objects.select_related("project").filter(pk=part_id).first()
    if part is None:
        return False
    drafts = own.drafts if own else _drafts_of(part)
    rows = [row_of(draft.job) for draft in in_turns(drafts)]
    with transaction.atomic():
        if not _removed(part_id):
            return False
        _clear_used_keys(part.project, drafts, rows)
        effects = Effects()
        accept(effects, [draft.job for draft in drafts], rows)
        linked = [draft for draft in drafts if draft.after]
        if linked:
            links.write_dependencies(effects, linked)
        idempotency.remember(part.project, [(key, digest, draft.job) for draft in drafts for key, digest in draft.keys])
        if not _has_parts(part.batch_id):
            effects.batches.add(part.batch_id)
        apply(effects, drafts[-1].job.created_at)
    return True


def _removed(part_id: int) -> bool:
    """Remove a part; False if it is gone. Its statements are not composed by the ORM, which takes longer than they do."""
    with connection.cursor() as cursor:
        cursor.execute('DELETE FROM "queues_intakepart" WHERE "id" = %s', [part_id])
        return bool(cursor.rowcount)


def _has_parts(batch_id: int) -> bool:
    with connection.cursor() as cursor:
        cursor.execute('SELECT EXISTS (SELECT 1 FROM "queues_intakepart" WHERE "batch_id" = %s)', [batch_id])
        return bool(cursor.fetchone()[0])


def _drafts_of(part: IntakePart) -> list[Draft]:
    """The jobs of a part, built from its text."""
    jobs, beside = json.loads(part.rows)
    drafts = [
        Draft(_job(values), after=after, keys=[(key, digest) for key, digest in keys])
        for values, (after, keys) in zip(jobs, beside, strict=True)
    ]
    for draft in drafts:
        draft.job.project_id, draft.job.batch_id = part.project_id, part.batch_id
    return drafts


def _clear_used_keys(project: Project, drafts: Sequence[Draft], rows: list[tuple[Any, ...]]) -> None:
    """Remove the idempotency key from jobs if another process used it between our look and our commit, which is
    possible if the database lets both look at once."""
    known = idempotency.known(project, [draft.job.idempotency_key for draft in drafts if draft.job.idempotency_key])
    for position, draft in enumerate(drafts):
        if draft.job.idempotency_key in known:
            draft.job.idempotency_key, draft.job.request_hash = None, ""
            rows[position] = row_of(draft.job)


def is_worth_it(count: int) -> bool:
    """Whether so many jobs are written in parts: not inside a transaction of the caller's own, which must be atomic."""
    return count > PART_SIZE and not connection.in_atomic_block
