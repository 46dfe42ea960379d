"""Acts on many rows in the background: on each at most once, with progress, also after a restart.

Dead letters and jobs, of which there may be a million, are chosen by a filter. Rows of other lists are in `queues.services.bulk_rows`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import F, Q, QuerySet

from queues.errors import AlreadyHandled, NotRetryable
from queues.models import BulkAction, DeadLetter, Job
from queues.selectors import job_filter
from queues.services import bulk_records, bulk_rows, dead_letters
from queues.services import cancel as cancelling
from queues.services.bulk_records import JOBS, LETTERS
from queues.states import Stage
from queues.transactions import retry_after_deadlock, started_before
from quotas import clock
from quotas.models import Project
from quotas.permissions import ACT_ON_JOBS
from quotas.services.membership import visible

SLICE = 50
UNDO_FOR = timedelta(seconds=10)
"""How long an action that a person began in the console can be undone."""
CANCEL_SLICE = 500
"""Jobs that are cancelled in one transaction."""
PREPARED_IN = timedelta(seconds=1)
"""Between the time that a job is stamped with and the beginning of the transaction that writes it."""
LONGEST_WAIT = timedelta(seconds=60)
"""How long an action waits at its end for transactions that began before it."""


def matching(filter: Mapping[str, Any], project: Project | None) -> QuerySet[DeadLetter]:
    """The open dead letters that match `filter`: category, severity, fingerprint, project, queue, type. The admin also
    filters by letters (`letters`), the newest one (`newest`), several projects (`projects`) and its search box (`search`).
    `project` restricts it to one."""
    rows = DeadLetter.objects.filter(handled_at=None)
    lookups = {
        "project": "project__slug", "projects": "project__slug__in", "queue": "queue__name", "letters": "pk__in",
        "newest": "pk__lte",
    }  # fmt: skip
    plain = {lookups.get(name, name): value for name, value in filter.items() if name != "search"}
    rows = rows.filter(**plain)
    if "search" in filter:
        text = filter["search"]
        rows = rows.filter(Q(uid=text) | Q(job__uid=text) | Q(fingerprint=text))
    return rows.filter(project=project) if project is not None else rows


def rows_of(target: str, verb: str, filter: Mapping[str, Any], project: Project | None) -> QuerySet[Any]:
    """The letters or jobs that `filter` chooses and `verb` can be done to."""
    if target == LETTERS:
        return matching(filter, project)
    rows = job_filter.jobs(filter).filter(job_filter.eligible(verb))
    return rows.filter(project=project) if project is not None else rows


def begin(
    verb: str,
    filter: Mapping[str, Any],
    *,
    project: Project | None,
    actor: str,
    reason: str,
    target: str = LETTERS,
    uid: str = "",
    undo_for: timedelta = timedelta(0),
) -> BulkAction:
    """Record an action on all that match now; the leading dispatcher processes it. `verb`: replay or discard for letters;
    cancel, retry or discard for jobs.

    Two audit entries stand for all, one of the intent and one of the outcome: each job's own page names who acted. A repeated
    `uid` of the same actor returns the action that the first call began. Nothing is done in the first `undo_for`, in which
    `bulk_records.undo` takes it back.
    """
    with transaction.atomic():
        total = rows_of(target, verb, filter, project).count()
        action, _ = bulk_records.create(
            verb, target, filter, total, project=project, actor=actor, reason=reason, uid=uid, starts_in=undo_for
        )
    return action


def process_next_slice(now: datetime | None = None) -> bool:
    """One slice of the oldest unfinished action whose time has come; False when there is nothing to do now."""
    now = now or clock.now()
    due = Q(starts_at=None) | Q(starts_at__lte=now)
    return any(
        _process_slice(action, now) for action in BulkAction.objects.filter(due, finished_at=None).order_by("pk")
    )


def _process_slice(action: BulkAction, now: datetime) -> bool:
    """The next slice of the action, and its end after the last one; False while it only waits for transactions that began before
    it."""
    if action.target not in (LETTERS, JOBS):
        return bulk_rows.process_slice(action)
    user, why_not = bulk_records.starter(action)
    if user is not None and not user.has_perm(ACT_ON_JOBS):
        why_not = f"{user.get_username()} may not do this any more."
    if why_not:
        bulk_records.end(action, why_not)
        return True
    rows = _existing(action)
    if user is not None:
        rows = visible(user, rows, "project")
    ids = _first(action, rows.filter(pk__gt=action.last_id))
    if not _act(action, ids) or len(ids) == _size(action):
        return True
    if started_before(action.created_at + PREPARED_IN) and now < action.created_at + LONGEST_WAIT:
        return bool(ids)
    late = _first(action, _not_acted_on(action, rows.filter(pk__lte=max([action.last_id, *ids]))))
    if late:
        BulkAction.objects.filter(pk=action.pk).update(total=F("total") + len(late))
    if not _act(action, late) or len(late) == _size(action):
        return True
    bulk_records.end(action, rest_is_skipped=True)
    return True


def _act(action: BulkAction, ids: list[int]) -> bool:
    """Do it to these rows; False if the action was stopped meanwhile."""
    if action.verb == "cancel":
        if ids:
            _cancel(action, ids)
        return True
    return all(_one(action, row_id) for row_id in ids)


def _existing(action: BulkAction) -> QuerySet[Any]:
    """Only rows that existed when the action began: jobs that die again meanwhile need another decision."""
    rows = rows_of(action.target, action.verb, action.filter, action.project)
    return rows.filter(created_at__lte=action.created_at)


def _not_acted_on(action: BulkAction, rows: QuerySet[Any]) -> QuerySet[Any]:
    """Of rows that the action has passed, those that it has not seen: PostgreSQL gives a row its key when it is written, and shows
    it when its transaction is committed."""
    if action.target == LETTERS:
        return rows
    if action.verb == "cancel":
        return rows.exclude(stage=Stage.RUNNING, cancel_requested_at__isnull=False)
    return rows.filter(finished_at__lte=action.created_at)


def _first(action: BulkAction, rows: QuerySet[Any]) -> list[int]:
    return list(rows.order_by("pk").values_list("pk", flat=True)[: _size(action)])


def _size(action: BulkAction) -> int:
    return CANCEL_SLICE if action.verb == "cancel" else SLICE


@retry_after_deadlock
def _cancel(action: BulkAction, ids: list[int]) -> None:
    with transaction.atomic():
        # The row's lock is the answer to a stop: after it nothing more is done.
        if BulkAction.objects.select_for_update().filter(pk=action.pk, finished_at=None).first() is None:
            return
        done = cancelling.cancel_all(Job.objects.filter(pk__in=ids), actor=action.actor, reason=action.reason)
        bulk_records.count(action, ids[-1], done, len(ids) - done)


def _one(action: BulkAction, row_id: int) -> bool:
    """One letter or job, in a transaction of its own. False: the action was stopped."""
    if not bulk_records.goes_on(action):
        return False
    done = 1
    try:
        letter_id = row_id if action.target == LETTERS else dead_letters.letter_of(Job.objects.get(pk=row_id)).pk
        act = dead_letters.discard if action.verb == "discard" else dead_letters.replay
        act(letter_id, actor=action.actor, reason=action.reason, audited=False)
    except (AlreadyHandled, NotRetryable):
        done = 0
    bulk_records.count(action, row_id, done, 1 - done)
    return True
