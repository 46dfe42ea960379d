"""Replays or discards many dead letters in the background: each at most once, with progress, also after a restart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db import transaction
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Greatest

from queues.errors import AlreadyHandled
from queues.models import BulkAction, DeadLetter
from queues.services import dead_letters
from queues.wakeups import notify
from quotas import clock, events
from quotas.models import Project

SLICE = 50


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


def begin(verb: str, filter: Mapping[str, Any], *, project: Project | None, actor: str, reason: str) -> BulkAction:
    """Record an action on all dead letters that match now; the leading dispatcher processes it. `verb`: replay, discard.

    One audit entry stands for all: each job's own page names who replayed it.
    """
    with transaction.atomic():
        action = BulkAction.objects.create(
            verb=verb,
            filter=dict(filter),
            project=project,
            actor=actor,
            reason=reason,
            total=matching(filter, project).count(),
        )
        after = {"filter": dict(filter), "total": action.total, "action": action.uid}
        events.emit(
            events.OperatorActed(
                actor,
                f"dead_letter.bulk_{verb}",
                "dead-letters",
                None,
                after,
                reason,
                project=project.slug if project else "",
            )
        )
        transaction.on_commit(lambda: notify())
    return action


def process_next_slice(now: Any = None) -> bool:
    """One slice of the oldest unfinished action; False when there is none. Each letter in a transaction of its own."""
    action = BulkAction.objects.filter(finished_at=None).order_by("pk").first()
    if action is None:
        return False
    # Only letters that existed when it began: jobs that die again meanwhile need another decision.
    letters = list(
        matching(action.filter, action.project)
        .filter(pk__gt=action.last_id, created_at__lte=action.created_at)
        .order_by("pk")
        .values_list("pk", flat=True)[:SLICE]
    )
    for letter_id in letters:
        done = 1
        try:
            verb = dead_letters.replay if action.verb == "replay" else dead_letters.discard
            verb(letter_id, actor=action.actor, reason=action.reason, audited=False)
        except AlreadyHandled:
            done = 0
        BulkAction.objects.filter(pk=action.pk).update(
            done=F("done") + done, skipped=F("skipped") + 1 - done, last_id=letter_id
        )
    if len(letters) < SLICE:
        # Letters that were handled otherwise meanwhile count as skipped.
        rest = Greatest(F("total") - F("done"), F("skipped"))
        BulkAction.objects.filter(pk=action.pk).update(finished_at=clock.now(), skipped=rest)
    return True
