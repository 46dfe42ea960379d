"""The record of a bulk action: it begins, counts, and ends by itself, by a stop or by an undo, each in the audit trail.

An entry of the intent is written when it begins. One more, with what was done and what was not, is written at its end.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import F
from django.db.models.functions import Greatest

from queues.errors import AlreadyFinished
from queues.ids import new_id
from queues.models import BulkAction
from queues.wakeups import notify
from quotas import clock, events
from quotas.models import Project
from quotas.services.membership import KEY, PERSON, key_may, person_of

LETTERS, JOBS = "letters", "jobs"
NOUNS = {LETTERS: "dead_letter", JOBS: "job"}
TARGETS = {LETTERS: "dead-letters", JOBS: "jobs"}
UNDONE = "undone before it started"
MOST_REFUSED = 20
"""Rows that were skipped and are kept with their reason."""
LONGEST_REASON = 200


def create(
    verb: str,
    target: str,
    filter: Mapping[str, Any],
    total: int,
    *,
    project: Project | None,
    actor: str,
    reason: str,
    uid: str,
    starts_in: timedelta,
    said: Mapping[str, Any] | None = None,
) -> tuple[BulkAction, bool]:
    """Record an action, and what the audit trail says that it is on (`said`; without it, `filter`). A repeated `uid` of the
    same actor returns the action that the first call began, and False."""
    known = BulkAction.objects.filter(uid=uid or None, actor=actor)
    if (first := known.first()) is not None:
        return first, False
    now = clock.now()
    try:
        with transaction.atomic():
            action = BulkAction.objects.create(
                uid=uid or new_id(), verb=verb, target=target, filter=dict(filter), project=project, actor=actor,
                reason=reason, starts_at=now + starts_in if starts_in else None, total=total, created_at=now,
            )  # fmt: skip
            after = {"filter": dict(filter if said is None else said), "total": total, "action": action.uid}
            _audit(action, verb, actor, after, reason, "intent")
            transaction.on_commit(lambda: notify())
    except IntegrityError:  # the same answer twice, at the same moment
        if (first := known.first()) is None:
            raise
        return first, False
    return action, True


def stop(action: BulkAction, *, actor: str, reason: str) -> BulkAction:
    """End an action before it is done; what it did stays. Raises `AlreadyFinished`."""
    with transaction.atomic():
        row = BulkAction.objects.select_for_update().get(pk=action.pk)
        if row.finished_at is not None:
            raise AlreadyFinished("The bulk action has ended already.")
        row.finished_at, row.stopped_by = clock.now(), actor[:200]
        row.save(update_fields=["finished_at", "stopped_by"])
        after = {"action": row.uid, "done": row.done, "not_done": row.total - row.done - row.skipped}
        _audit(row, "stop", actor, after, reason)
        _summarize(row)
    return row


def undo(action: BulkAction, *, actor: str) -> BulkAction:
    """Take an action back before it starts: no row was changed. Raises `AlreadyFinished`."""
    with transaction.atomic():
        row = BulkAction.objects.select_for_update().get(pk=action.pk)
        now = clock.now()
        if row.finished_at is not None:
            raise AlreadyFinished("The bulk action has ended already.")
        if not can_be_undone(row):
            raise AlreadyFinished("The bulk action has started; it can only be stopped.")
        row.finished_at, row.stopped_by = now, actor[:200]
        row.save(update_fields=["finished_at", "stopped_by"])
        _audit(row, "undo", actor, {"action": row.uid, "not_done": row.total}, UNDONE)
    return row


def can_be_undone(action: BulkAction) -> bool:
    """Whether nothing has been done, and nothing is about to be."""
    waits = action.finished_at is None and action.starts_at is not None and action.starts_at > clock.now()
    return waits and not action.done and not action.skipped


def end(action: BulkAction, why: str = "", *, rest_is_skipped: bool = False) -> None:
    """End an action that has no more to do, or that can't continue (`why`); nothing where it has ended. Rows that are in
    its total and were neither done nor skipped were changed by others."""
    with transaction.atomic():
        rows = BulkAction.objects.filter(pk=action.pk, finished_at=None)
        rest = {"skipped": Greatest(F("total") - F("done"), F("skipped"))} if rest_is_skipped else {}
        if rows.update(finished_at=clock.now(), stopped_why=why[:LONGEST_REASON], **rest):
            _summarize(BulkAction.objects.get(pk=action.pk))


def count(action: BulkAction, last_id: int, done: int, skipped: int, why: list[str] | None = None) -> None:
    """Note what was done up to the row `last_id`; `why` are the row that was skipped and the reason."""
    more: dict[str, Any] = {}
    if why is not None and len(action.refused) < MOST_REFUSED:
        action.refused = [*action.refused, [text[:LONGEST_REASON] for text in why]]
        more["refused"] = action.refused
    BulkAction.objects.filter(pk=action.pk).update(
        done=F("done") + done, skipped=F("skipped") + skipped, last_id=Greatest(F("last_id"), last_id), **more
    )


def goes_on(action: BulkAction) -> bool:
    """False once somebody has stopped it."""
    return BulkAction.objects.filter(pk=action.pk, finished_at=None).exists()


def starter(action: BulkAction) -> tuple[Any, str]:
    """The person who began it, with the present permissions, and why there is none any more. Both empty: a key that is in force,
    or the product itself, began it."""
    if action.actor.startswith(KEY):
        name = action.actor.removeprefix(KEY)
        return None, "" if key_may(action.actor, "operate") else f"The API key {name} may not do this any more."
    if not action.actor.startswith(PERSON):
        return None, ""
    user = person_of(action.actor)
    return user, "" if user is not None else f"{action.actor.removeprefix(PERSON)} can't sign in any more."


def _summarize(action: BulkAction) -> None:
    after = {
        "action": action.uid, "total": action.total, "done": action.done, "skipped": action.skipped,
        "not_done": max(0, action.total - action.done - action.skipped),
    }  # fmt: skip
    if action.stopped_why:
        after["why"] = action.stopped_why
    _audit(action, action.verb, action.actor, after, action.reason)


def _audit(action: BulkAction, verb: str, actor: str, after: Any, reason: str, phase: str = "done") -> None:
    noun = NOUNS.get(action.target) or action.target.partition(".")[2]
    target = TARGETS.get(action.target, action.target)
    project = action.project.slug if action.project else ""
    events.emit(events.OperatorActed(actor, f"{noun}.bulk_{verb}", target, None, after, reason, phase, project=project))
