"""Runs what is confirmed on a list of the configuration: a few rows at once, many in the background; either is a bulk action."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html

from queues.admin.dead_letter_actions import undo_button
from queues.models import BulkAction
from queues.services import bulk_records, bulk_rows
from queues.services.bulk_actions import UNDO_FOR
from quotas.admin import bulk
from quotas.admin.audit import actor_of
from quotas.services.row_actions import RowAction

SAID = 5
"""Skipped rows that the message names."""


def run(request: HttpRequest, on: RowAction, rows: QuerySet[Any], reason: str, done: str) -> None:
    """Begin the bulk action, run it where it has few rows, and report."""
    ids = list(rows.order_by("pk").values_list("pk", flat=True)[: bulk_rows.MOST + 1])
    if len(ids) > bulk_rows.MOST:
        messages.error(request, f"Nothing was done: more than {bulk_rows.MOST:,} match. Filter the list first.")
        return
    action, now = bulk_rows.begin(
        on, ids, actor=actor_of(request), reason=reason, uid=bulk.token_of(request), undo_for=UNDO_FOR
    )
    if now:
        action = bulk_rows.run(action)
    if action.finished_at is not None:
        _say_ended(request, on, action, done)
    else:
        _say_begun(request, on, action)


def _say_ended(request: HttpRequest, on: RowAction, action: BulkAction, done: str) -> None:
    if action.done:
        messages.success(request, bulk.sentence(done, action.done, on.model))
    if action.refused:
        more = f" And {action.skipped - SAID:,} more." if action.skipped > SAID else ""
        said = "; ".join(f"{name}: {why}" for name, why in action.refused[:SAID])
        messages.warning(request, f"Skipped: {said}.{more}")
    if action.stopped_why:
        messages.error(request, action.stopped_why)


def _say_begun(request: HttpRequest, on: RowAction, action: BulkAction) -> None:
    waits = bulk_records.can_be_undone(action)
    when = f"starts in {UNDO_FOR.seconds} s" if waits else f"is at {action.done:,}"
    messages.success(
        request,
        format_html(
            '{} ({}) {}, in the background. <a class="sl-link" href="{}">Show progress</a> {}',
            on.title, f"{action.total:,}", when,
            reverse("admin:queues_bulkaction_change", args=[action.pk]), undo_button(request, action) if waits else "",
        ),
    )  # fmt: skip


bulk.connect(run)
