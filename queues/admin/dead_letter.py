"""Dead letters: jobs that were given up, waiting for somebody to replay or discard them."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from unfold.contrib.filters.admin import AutocompleteSelectFilter, ChoicesDropdownFilter
from unfold.decorators import action, display
from unfold.enums import ActionVariant

from queues.admin.job import pretty
from queues.api.shapes import REDACTED, payload_of
from queues.errors import LETTER_CATEGORIES, InvalidJob, QueueError
from queues.models import DeadLetter
from queues.services import replay as replaying
from quotas.admin.base import ReadOnlyAdmin
from quotas.admin.bulk import Refused, bulk_action
from quotas.admin.dialogs import PayloadDialog, asking, back, why
from quotas.admin.trail import actor_of
from quotas.admin.visibility import visible

CATEGORIES = (*LETTER_CATEGORIES, "unknown")


class HandledFilter(admin.SimpleListFilter):
    title = "handled"
    parameter_name = "handled"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("all", "all"), ("replayed", "replayed"), ("discarded", "discarded")]

    def choices(self, changelist: Any) -> Any:
        found = list(super().choices(changelist))
        found[0]["display"] = "waiting"
        return found

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if self.value() is None:
            # A chosen row stays the action's, whatever became of it meanwhile.
            return queryset.filter(handled_at=None) if request.method == "GET" else queryset
        return queryset if self.value() == "all" else queryset.filter(handled_as=self.value())


class CategoryFilter(admin.SimpleListFilter):
    title = "category"
    parameter_name = "category"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(word, word.replace("_", " ")) for word in CATEGORIES]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(category=self.value()) if self.value() else queryset


class ReplayForm(PayloadDialog):
    """The payload that the job died with stands in it, to be corrected."""

    def __init__(self, request: HttpRequest, object_id: str | int | None = None, *args: Any, **kwargs: Any) -> None:
        super().__init__(request, object_id, *args, **kwargs)
        rows = visible(request.user, DeadLetter.objects.all(), "project")
        letter = rows.select_related("job").filter(pk=object_id or 0).first()
        if letter is not None:
            self.job = letter.job
            self.fields["payload"].initial = payload_of(letter.job)

    def clean_payload(self) -> Any:
        payload = self.cleaned_data["payload"]
        if not isinstance(payload, dict):
            raise forms.ValidationError("An object.")
        # What is hidden and was left alone stays what it was.
        kept = {name: self.job.payload.get(name) for name, value in payload.items() if value == REDACTED}
        return {**payload, **kept}


def _replay(request: HttpRequest, letter: DeadLetter, reason: str) -> None:
    try:
        replaying.replay(letter.pk, actor=actor_of(request), reason=reason)
    except QueueError as error:
        raise Refused(str(error)) from None


def _discard(request: HttpRequest, letter: DeadLetter, reason: str) -> None:
    try:
        replaying.discard(letter.pk, actor=actor_of(request), reason=reason)
    except QueueError as error:
        raise Refused(str(error)) from None


@admin.register(DeadLetter)
class DeadLetterAdmin(ReadOnlyAdmin):
    project_lookup = "project"
    list_display = [
        "ident",
        "shown_category",
        "shown_severity",
        "type",
        "queue",
        "project",
        "short_error",
        "created_at",
        "handled",
    ]
    list_filter = [
        HandledFilter,
        CategoryFilter,
        ("severity", ChoicesDropdownFilter),
        ("queue", AutocompleteSelectFilter),
        ("project", AutocompleteSelectFilter),
    ]
    list_select_related = ["queue", "project"]
    list_per_page = 50
    sortable_by = ()
    search_fields = ["uid__exact", "job__uid__exact", "fingerprint__exact"]
    search_help_text = "A letter's or job's id, or a fingerprint, whole"
    actions_detail = ["replay", "edit", "discard"]
    fieldsets = [
        (
            None,
            {
                "fields": [
                    ("shown_category", "shown_severity"),
                    ("type", "queue"),
                    ("project", "job_link"),
                    ("attempts", "created_at"),
                    ("fingerprint", "alike"),
                ]
            },
        ),
        ("What happened", {"fields": ["shown_error", "shown_traceback", "shown_payload"]}),
        ("Handled", {"fields": [("handled_as", "handled_by"), ("handled_at", "handled_reason")]}),
    ]
    readonly_fields = [
        "shown_category", "shown_severity", "job_link", "alike", "shown_error", "shown_traceback", "shown_payload",
    ]  # fmt: skip
    actions = [
        bulk_action(
            "Replay letters",
            question="Replay {count} dead letters? Each goes back in line, under the same quotas.",
            done="{count} jobs are back in line.",
            act=_replay,
        ),
        bulk_action(
            "Discard letters",
            question="Discard {count} dead letters? Their jobs stay dead.",
            done="{count} letters discarded.",
            act=_discard,
            danger=True,
        ),
    ]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).select_related("queue", "project")

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> Any:
        letter = self.get_object(request, str(object_id))
        return [] if letter is None or letter.handled_at else super().get_actions_detail(request, object_id)

    @display(description="Letter")
    def ident(self, row: DeadLetter) -> str:
        return row.uid

    @display(description="Category", label=True)
    def shown_category(self, row: DeadLetter) -> str:
        return row.category.replace("_", " ")

    @display(description="Severity", label={"critical": "danger", "warning": "warning", "info": "info"})
    def shown_severity(self, row: DeadLetter) -> str:
        return row.severity

    @display(description="Error")
    def short_error(self, row: DeadLetter) -> str:
        return row.error[:120] + ("…" if len(row.error) > 120 else "")

    @display(description="Handled", label={"replayed": "success", "discarded": "default"})
    def handled(self, row: DeadLetter) -> str | None:
        return row.handled_as or None

    @display(description="Error")
    def shown_error(self, row: DeadLetter) -> str:
        return format_html('<pre class="sl-json">{}</pre>', row.error or "–")

    @display(description="Last traceback")
    def shown_traceback(self, row: DeadLetter) -> str:
        last = row.job.attempts.exclude(traceback="").order_by("-number").values_list("traceback", flat=True).first()
        return format_html('<pre class="sl-json">{}</pre>', last) if last else "–"

    @display(description="Payload")
    def shown_payload(self, row: DeadLetter) -> str:
        return pretty(payload_of(row.job))

    @display(description="Job")
    def job_link(self, row: DeadLetter) -> str:
        return format_html(
            '<a class="sl-link" href="{}">{}</a>', reverse("admin:queues_job_change", args=[row.job_id]), row.job.uid
        )

    @display(description="Others alike")
    def alike(self, row: DeadLetter) -> str:
        return format_html(
            '<a class="sl-link" href="{}?q={}">Letters with this fingerprint</a>',
            reverse("admin:queues_deadletter_changelist"),
            row.fingerprint,
        )

    @action(
        description="Replay",
        url_path="replay",
        icon="replay",
        variant=ActionVariant.PRIMARY,
        permissions=["operate"],
        dialog=asking(
            "Replay this job?", "It goes back in line with all its attempts, under the same quotas.", "Replay"
        ),
    )
    def replay(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        return self._handle(request, object_id, lambda letter: _replay(request, letter, why(form)), "Back in line.")

    @action(
        description="Edit and replay",
        url_path="edit",
        icon="edit",
        permissions=["operate"],
        dialog=asking("Replay with another payload", "It is checked against the type's schema.", "Replay", ReplayForm),
    )
    def edit(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        def act(letter: DeadLetter) -> None:
            payload = form.cleaned_data["payload"]
            try:
                replaying.replay(letter.pk, actor=actor_of(request), reason=why(form), payload=payload)
            except InvalidJob as error:
                raise Refused(f"The payload does not fit: {error}") from None
            except QueueError as error:
                raise Refused(str(error)) from None

        return self._handle(request, object_id, act, "Back in line with the new payload.")

    @action(
        description="Discard",
        url_path="discard",
        icon="delete",
        variant=ActionVariant.DANGER,
        permissions=["operate"],
        dialog=asking("Discard this letter?", "Its job stays dead; the letter counts as handled.", "Discard"),
    )
    def discard(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        return self._handle(request, object_id, lambda letter: _discard(request, letter, why(form)), "Discarded.")

    def _handle(self, request: HttpRequest, object_id: str, act: Any, done: str) -> HttpResponse:
        letter = self.row(request, object_id)
        try:
            act(letter)
            messages.success(request, done)
        except Refused as error:
            messages.error(request, str(error))
        return back(request, reverse("admin:queues_deadletter_change", args=[letter.pk]))
