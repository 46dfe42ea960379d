"""Bulk actions on rows of the configuration and on alerts: row by row, each by its registered function.

    confirmed -> at most `AT_ONCE` rows: all of them in the request, as an action that ends before the answer
              -> more: the leading dispatcher, in parts, after the time for an undo

Both are the same object with the same checks. Where the request's process dies before the end, the dispatcher does the rest.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from django.db import DatabaseError

from queues.models import BulkAction
from queues.services import bulk_records
from quotas.engine.errors import LimiterUnavailable
from quotas.services import row_actions
from quotas.services.row_actions import Refused, RowAction

AT_ONCE = 20
"""Rows that the web request may act on itself: few enough for a page to wait for."""
MOST = 100_000
"""Rows of one action: their primary keys are stored with it."""
SLICE = 200
SLICE_TIME = 0.25
"""Seconds after which a slice ends: the dispatcher has jobs to release meanwhile."""
TAKEN_OVER_AFTER = timedelta(seconds=60)
"""When the dispatcher continues what a web process was to do at once."""
AGAIN = "again"
"""In the filter: the row whose act was interrupted, since Redis did not answer."""
CHANGED = "it had changed meanwhile"
GONE = "it does not exist any more"


def begin(
    kind: RowAction, ids: Sequence[int], *, actor: str, reason: str, uid: str, undo_for: timedelta
) -> tuple[BulkAction, bool]:
    """Record the action on these rows; whether the caller is to run it now. A repeated `uid` returns the first call's."""
    at_once = len(ids) <= AT_ONCE
    action, is_new = bulk_records.create(
        kind.name, kind.target, {"rows": sorted(ids)}, len(ids), project=None, actor=actor, reason=reason, uid=uid,
        starts_in=TAKEN_OVER_AFTER if at_once else undo_for, said={"rows": len(ids)},
    )  # fmt: skip
    return action, at_once and is_new


def run(action: BulkAction) -> BulkAction:
    """All of it now; what can't be done now is left to the dispatcher."""
    while action.finished_at is None:
        if not process_slice(action):
            BulkAction.objects.filter(pk=action.pk).update(starts_at=None)
            break
        action.refresh_from_db()
    return action


def process_slice(action: BulkAction) -> bool:
    """The next rows, and the end after the last one. False where Redis is needed and does not answer."""
    kind = row_actions.find(action.target, action.verb)
    user, why_not = bulk_records.starter(action)
    if kind is None:
        why_not = "This version has no such action."
    elif user is None or not kind.allowed(user):
        why_not = why_not or f"{action.actor.partition(':')[2]} may not do this any more."
    if kind is None or why_not:
        bulk_records.end(action, why_not)
        return True
    ids: list[int] = action.filter["rows"]
    left = ids[bisect_right(ids, action.last_id) :]
    until = time.monotonic() + SLICE_TIME
    for number, row_id in enumerate(left[:SLICE], 1):
        if not bulk_records.goes_on(action):
            return True
        if not _do(action, kind, user, row_id):
            return False
        if number < len(left) and time.monotonic() > until:
            return True
    if len(left) <= SLICE:
        bulk_records.end(action)
    return True


def _do(action: BulkAction, kind: RowAction, user: Any, row_id: int) -> bool:
    """One row. An unexpected error ends the action, so that the row does not fail again each second."""
    try:
        why = _act(action, kind, user, row_id)
    except LimiterUnavailable:
        if action.filter.get(AGAIN) != row_id:
            action.filter[AGAIN] = row_id
            action.save(update_fields=["filter"])
        return False
    except DatabaseError:
        raise
    except Exception as error:
        bulk_records.end(action, f"It failed at row {row_id}: {type(error).__name__}.")
        raise
    bulk_records.count(action, row_id, 0 if why else 1, 1 if why else 0, why or None)
    return True


def _act(action: BulkAction, kind: RowAction, user: Any, row_id: int) -> list[str]:
    """The row and why it was not done; empty: it was."""
    row = kind.rows(user).filter(pk=row_id).first()
    if row is None:
        return [f"#{row_id}", GONE]
    name = str(row)
    # Redis may have failed after SQL was changed: the row is done again, though it looks as if it were done.
    if row_id != action.filter.get(AGAIN) and not kind.rows(user).filter(kind.only, pk=row_id).exists():
        return [name, CHANGED]
    if why := kind.refusal(user, row):
        return [name, why]
    try:
        kind.act(row, actor=action.actor, reason=action.reason)
    except Refused as refused:
        return [name, str(refused)]
    return []
