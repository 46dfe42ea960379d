"""The actions on the pages of dead letters: replay, edit and replay, discard, and bulk actions on many letters."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import messages
from django.db.models import QuerySet
from django.http import Http404, HttpRequest
from django.middleware.csrf import get_token
from django.urls import reverse
from django.utils.html import format_html

from queues import redaction, registry
from queues.errors import InvalidJob, QueueError
from queues.models import BulkAction, DeadLetter, Queue
from queues.services import bulk_actions, dead_letters
from queues.services.bulk_actions import UNDO_FOR
from quotas.admin.audit import actor_of
from quotas.admin.bulk import Refused, across, token_of
from quotas.admin.dialogs import PayloadDialog
from quotas.admin.visibility import shown_slugs, visible
from quotas.models import Project

FILTERS = {"q", "handled", "category", "severity__exact", "queue__id__exact", "project__id__exact"}
"""Members of the list's address that a bulk action's filter can say."""
NO_FILTERS = {"p", "o", "all", "e"}
MOST_CHOSEN = 10_000


class ReplayForm(PayloadDialog):
    """Starts with the payload that failed, to be corrected."""

    def __init__(self, request: HttpRequest, object_id: str | int | None = None, *args: Any, **kwargs: Any) -> None:
        super().__init__(request, object_id, *args, **kwargs)
        rows = visible(request.user, DeadLetter.objects.all(), "project")
        letter = rows.select_related("job").filter(pk=object_id or 0).first()
        if letter is None:
            raise Http404
        self.job = letter.job
        self.fields["payload"].initial = redaction.hide(registry.redacted(letter.type, letter.job.payload))

    def clean_payload(self) -> Any:
        payload = self.cleaned_data["payload"]
        if not isinstance(payload, dict):
            raise forms.ValidationError("Must be a JSON object.")
        # A hidden value that was not changed keeps its value.
        kept = {name: self.job.payload.get(name) for name, value in payload.items() if value == registry.REDACTED}
        given = redaction.restore({**payload, **kept}, self.job.payload)
        if redaction.hides(given) and not redaction.hides(self.job.payload):
            raise forms.ValidationError(f"Replace each {registry.REDACTED}: it was moved, so its value is unknown.")
        job_type = registry.get(self.job.type)
        # Checked here, so that the dialog stays open with the input.
        if errors := job_type.validate(given, "/payload") if job_type else []:
            raise forms.ValidationError([f"{error.pointer}: {error.detail}" for error in errors])
        return given


def replay(request: HttpRequest, letter: DeadLetter, reason: str, payload: dict[str, Any] | None = None) -> None:
    try:
        dead_letters.replay(letter.pk, actor=actor_of(request), reason=reason, payload=payload)
    except InvalidJob as error:
        raise Refused(f"Invalid payload: {error}") from None
    except QueueError as error:
        raise Refused(str(error)) from None


def discard(request: HttpRequest, letter: DeadLetter, reason: str) -> None:
    try:
        dead_letters.discard(letter.pk, actor=actor_of(request), reason=reason)
    except QueueError as error:
        raise Refused(str(error)) from None


def in_background(verb: str) -> Any:
    """An action that creates a bulk action for the list's rows, which the leading dispatcher processes."""

    def together(request: HttpRequest, rows: QuerySet[Any], reason: str) -> None:
        filter = filter_of(request, rows)
        if filter is None:
            say_too_many(request, "dead letters")
            return
        action = bulk_actions.begin(
            verb, filter, project=None, actor=actor_of(request), reason=reason, uid=token_of(request),
            undo_for=bulk_actions.UNDO_FOR,
        )  # fmt: skip
        say_begun(request, action, "dead letter")

    return together


def undo_button(request: HttpRequest, action: BulkAction) -> str:
    """Takes the action back with one click while nothing has been done."""
    return format_html(
        """<button type="button" class="sl-button" hx-post="{}" hx-headers='{{"X-CSRFToken": "{}"}}'>Undo</button>""",
        reverse("admin:queues_bulkaction_undo", args=[action.pk]), get_token(request),
    )  # fmt: skip


def say_begun(request: HttpRequest, action: BulkAction, noun: str) -> None:
    doing = {"replay": "Replaying", "retry": "Retrying", "discard": "Discarding", "cancel": "Cancelling"}[action.verb]
    messages.success(
        request,
        format_html(
            '{} {} {} in the background, in {} s. <a class="sl-link" href="{}">Show progress</a> {}',
            doing, f"{action.total:,}", noun if action.total == 1 else f"{noun}s", UNDO_FOR.seconds,
            reverse("admin:queues_bulkaction_change", args=[action.pk]), undo_button(request, action),
        ),
    )  # fmt: skip


def say_too_many(request: HttpRequest, nouns: str) -> None:
    messages.error(
        request,
        f"Nothing was done: the address has filters that can't be stored, and more than {MOST_CHOSEN:,} {nouns} match.",
    )


def filter_of(request: HttpRequest, rows: QuerySet[Any]) -> dict[str, Any] | None:
    """The rows that the operator has confirmed, as the filter of a bulk action. None: impossible."""
    if not across(request) or set(request.GET) - FILTERS - NO_FILTERS:
        ids = list(rows.order_by("pk").values_list("pk", flat=True)[: MOST_CHOSEN + 1])
        return {"letters": ids} if len(ids) <= MOST_CHOSEN else None
    chosen: dict[str, Any] = {"newest": int(request.POST["newest"])}
    given = request.GET
    if text := given.get("q", "").strip():
        chosen["search"] = text
    if category := given.get("category"):
        chosen["category"] = category
    if severity := given.get("severity__exact"):
        chosen["severity"] = severity
    if queue := given.get("queue__id__exact"):
        chosen["queue"] = Queue.objects.values_list("name", flat=True).get(pk=queue)
    if project := given.get("project__id__exact"):
        chosen["project"] = Project.objects.values_list("slug", flat=True).get(pk=project)
    shown = shown_slugs(request)
    if shown is not None:
        chosen["projects"] = shown
    return chosen
