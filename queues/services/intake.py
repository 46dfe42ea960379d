"""Turning an accepted bulk into rows, a part at a time.

The transaction that accepts a bulk writes its jobs as a few parts, which takes milliseconds. From its commit on the
bulk is accepted whole: whoever accepted it writes the rows and then answers, and if that process dies, the leading
dispatcher goes on. Until a part is rows, its jobs count as waiting, and its keys as used.
"""

from __future__ import annotations

import functools
import json
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, ParamSpec, TypeVar

from django.db import connection, transaction

from queues.errors import QueueError
from queues.lifecycle.effects import Effects
from queues.lifecycle.perform import apply
from queues.lifecycle.waiting import accept, restored_job
from queues.models import Batch, IntakePart, Job, JobDependency
from queues.services import idempotency
from queues.services.deadlock import again_after_deadlock
from queues.slices import slices
from queues.states import FINAL
from quotas.models import Project

P = ParamSpec("P")
R = TypeVar("R")

SIZE = 100
"""Jobs in a part, and the fewest for which parts are made."""
BREATH = 0.005
"""Seconds between two parts, in which others get their turn to write."""
ORPHANED = timedelta(seconds=5)
"""Parts that are older have lost the process that accepted them."""
AT_ONCE = 5
"""Orphaned parts in one go, so that the dispatcher goes on."""
_COLUMNS = (
    "uid", "queue_id", "type", "payload", "pool", "model", "priority", "user", "keys", "cost", "max_attempts", "timeout",
    "delivery_mode", "callback_url", "idempotency_key", "request_hash", "unique_key", "unique_until", "status", "stage",
    "ordering_key", "not_before", "created_at", "reason",
)  # fmt: skip
_TIMES = [position for position, name in enumerate(_COLUMNS) if name in ("unique_until", "not_before", "created_at")]


class StillTakenIn(QueueError):
    """A key of this request belongs to a job of a bulk whose rows are still being written."""


@dataclass(slots=True)
class Draft:
    """A job that is accepted with what belongs to it. `keys`: idempotency keys, with the hashes of their requests,
    that were answered with this job."""

    job: Job
    text: str = ""
    """The job as JSON, where it is taken in by parts: made before anything is locked."""
    after: Sequence[int] = ()
    keys: list[tuple[str, str]] = field(default_factory=list)


def write(project: Project, batch: Batch, drafts: Sequence[Draft], now: datetime) -> None:
    """Accept `drafts` as parts; inside the transaction that accepts them."""
    IntakePart.objects.bulk_create(
        IntakePart(
            project=project,
            batch=batch,
            count=len(some),
            queues=Counter(str(draft.job.queue_id) for draft in some),
            pools=sorted({draft.job.pool for draft in some if draft.job.pool}),
            names=_names(some),
            rows=_text_of_part(some),
            created_at=now,
        )
        for some in slices(drafts, SIZE)
    )


def _names(drafts: Sequence[Draft]) -> list[str]:
    """What no other submission may use meanwhile without looking at these jobs."""
    found = [name for draft in drafts for name in (draft.job.idempotency_key, draft.job.unique_key) if name]
    return found + [key for draft in drafts for key, _ in draft.keys]


def _text_of_part(drafts: Sequence[Draft]) -> str:
    beside = json.dumps([[list(draft.after), draft.keys] for draft in drafts])
    return f"[[{','.join(draft.text or text_of(draft.job) for draft in drafts)}],{beside}]"


def text_of(job: Job) -> str:
    """A job that is no row yet, as JSON."""
    values = [getattr(job, name) for name in _COLUMNS]
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
    """Raises `StillTakenIn` where one of the keys belongs to a job that is not a row yet."""
    asked = frozenset(names)
    if asked:
        for taken in IntakePart.objects.filter(project=project).values_list("names", flat=True):
            if not asked.isdisjoint(taken):
                raise StillTakenIn()


def after_what_is_taken_in(act: Callable[P, R]) -> Callable[P, R]:
    """Do again what met a key of a bulk that is being taken in, once that bulk's rows are written. The first argument
    of `act` is the project."""

    @functools.wraps(act)
    def acting(*args: P.args, **kwargs: P.kwargs) -> R:
        while True:
            try:
                return act(*args, **kwargs)
            except StillTakenIn:
                finish({"project": args[0]})

    return acting


def finish(parts: Mapping[str, Any]) -> None:
    """Write the rows of all parts that match, one part after the other."""
    for pk in IntakePart.objects.filter(**parts).order_by("pk").values_list("pk", flat=True):
        if _turn_into_rows(pk):
            time.sleep(BREATH)


def go_on(now: datetime) -> None:
    """Write the rows of parts whose process has died."""
    orphans = IntakePart.objects.filter(created_at__lt=now - ORPHANED).order_by("pk").values_list("pk", flat=True)
    for pk in orphans[:AT_ONCE]:
        _turn_into_rows(pk)


@again_after_deadlock
def _turn_into_rows(part_id: int) -> bool:
    """False where somebody else did it."""
    with transaction.atomic():
        part = IntakePart.objects.select_for_update(of=("self",)).filter(pk=part_id).first()
        if part is None:
            return False
        rows, beside = json.loads(part.rows)
        known = idempotency.known(part.project, [values[_KEY] for values in rows if values[_KEY]])
        drafts = [
            Draft(_job(values), after=after, keys=[(key, digest) for key, digest in keys])
            for values, (after, keys) in zip(rows, beside, strict=True)
        ]
        for draft in drafts:
            draft.job.project_id, draft.job.batch_id = part.project_id, part.batch_id
            if draft.job.idempotency_key in known:
                # Somebody used it between our look and our commit, where the database lets both look at once.
                draft.job.idempotency_key, draft.job.request_hash = None, ""
        jobs = [draft.job for draft in drafts]
        effects = Effects()
        write_rows(effects, drafts)
        idempotency.remember(part.project, [(key, digest, draft.job) for draft in drafts for key, digest in draft.keys])
        part.delete()
        if not IntakePart.objects.filter(batch=part.batch_id).exists():
            effects.batches.add(part.batch_id)
        apply(effects, jobs[-1].created_at)
    return True


_KEY = _COLUMNS.index("idempotency_key")


def write_rows(effects: Effects, drafts: Sequence[Draft]) -> None:
    """Insert the jobs and what they wait for; a job that has ended already is treated like one that ends later."""
    accept(effects, [draft.job for draft in drafts])
    pairs = [(draft.job, after) for draft in drafts for after in draft.after]
    if not pairs:
        return
    others = sorted({after for _, after in pairs})
    ended: list[int] = []
    for some in slices(others, 500):
        # Locked: one that ends meanwhile would not see that somebody waits for it.
        rows = Job.objects.filter(pk__in=some).order_by("pk").select_for_update(no_key=True)
        ended += [pk for pk, status in rows.values_list("pk", "status") if status in FINAL]
    JobDependency.objects.bulk_create((JobDependency(job=job, after_id=after) for job, after in pairs), batch_size=500)
    effects.ended_before += ended


def is_worth_it(count: int) -> bool:
    """Whether so many jobs are taken in by parts: not inside a transaction of the caller's own, which is one whole."""
    return count > SIZE and not connection.in_atomic_block
