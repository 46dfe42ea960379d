"""Dead letters: jobs that exhausted their retries, to be replayed or discarded."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import path, reverse
from django.utils.html import format_html
from unfold.contrib.filters.admin import AutocompleteSelectFilter, ChoicesDropdownFilter
from unfold.decorators import display
from unfold.enums import ActionVariant

from queues import redaction, registry
from queues.admin import dead_letter_actions, dead_letter_groups, ignored_failures
from queues.admin.pretty_json import pretty
from queues.models import DeadLetter
from queues.selectors.dead_letters import traceback_of
from quotas.admin.base import ReadOnlyAdmin
from quotas.admin.bulk import bulk_action, listing
from quotas.admin.dialogs import why
from quotas.admin.reason_action import reason_action
from quotas.engine.categories import OF_DEAD_JOBS
from quotas.permissions import ACT_ON_JOBS

CATEGORIES = (*OF_DEAD_JOBS, "unknown")


OPEN = {"handled_at": None}


class HandledFilter(admin.SimpleListFilter):
    title = "status"
    parameter_name = "handled"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("all", "all"), ("replayed", "replayed"), ("discarded", "discarded")]

    def choices(self, changelist: Any) -> Any:
        found = list(super().choices(changelist))
        found[0]["display"] = "open"
        return found

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if self.value() is None:
            return queryset.filter(handled_at=None) if listing(request) else queryset
        return queryset if self.value() == "all" else queryset.filter(handled_as=self.value())


class CategoryFilter(admin.SimpleListFilter):
    title = "category"
    parameter_name = "category"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(word, word.replace("_", " ")) for word in CATEGORIES]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(category=self.value()) if self.value() else queryset


@admin.register(DeadLetter)
class DeadLetterAdmin(ReadOnlyAdmin):
    operate_permission = ACT_ON_JOBS
    payload_fields = frozenset({"shown_payload"})
    lists = ("_changelist", "_groups", "_group")
    empty_text = "A job that exhausts its retries or can never succeed appears here, to be replayed or discarded."
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
    list_before_template = "admin/sluice/letter_list.html"
    sortable_by = ()
    search_fields = ["uid__exact", "job__uid__exact", "fingerprint__exact"]
    search_help_text = "Full dead letter ID, job ID or fingerprint"
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
        ("Failure", {"fields": ["shown_error", "shown_traceback", "shown_payload"]}),
        ("Resolution", {"fields": [("handled_as", "handled_by"), ("handled_at", "handled_reason")]}),
    ]
    readonly_fields = [
        "shown_category", "shown_severity", "job_link", "alike", "shown_error", "shown_traceback", "shown_payload",
    ]  # fmt: skip
    actions = [
        bulk_action(
            "Replay letters",
            question="Replay {count} {noun}? Their jobs are requeued under the same quotas.",
            together=dead_letter_actions.in_background("replay"),
            only=OPEN,
        ),
        bulk_action(
            "Discard letters",
            question="Discard {count} {noun}? Their jobs stay dead.",
            together=dead_letter_actions.in_background("discard"),
            only=OPEN,
            danger=True,
        ),
    ]

    replay = reason_action(
        "replay", "Replay", icon="replay", variant=ActionVariant.PRIMARY, done="Requeued.",
        act=lambda request, letter, dialog: dead_letter_actions.replay(request, letter, why(dialog)), question="Replay this job?",
        detail="It is requeued with its attempts reset, under the same quotas.",
    )  # fmt: skip
    edit = reason_action(
        "edit", "Edit and replay", icon="edit", also="payload", form=dead_letter_actions.ReplayForm, submit="Replay", done="Requeued with the new payload.",
        act=lambda request, letter, dialog: dead_letter_actions.replay(request, letter, why(dialog), dialog.cleaned_data["payload"]),
        question="Replay with another payload?",
        detail="The payload is checked against the job type. The one that failed stays on the dead letter.",
    )  # fmt: skip
    discard = reason_action(
        "discard", "Discard", icon="delete", variant=ActionVariant.DANGER, done="Discarded.",
        act=lambda request, letter, dialog: dead_letter_actions.discard(request, letter, why(dialog)),
        question="Discard this dead letter?", detail="Its job stays dead.",
    )  # fmt: skip

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).select_related("queue", "project")

    def get_list_display(self, request: HttpRequest) -> Any:
        """A list of open ones does not say so of each."""
        columns = super().get_list_display(request)
        return columns if "handled" in request.GET else [name for name in columns if name != "handled"]

    def get_urls(self) -> Any:
        guarded = self.admin_site.admin_view
        return [
            path(
                "groups/",
                guarded(lambda request: dead_letter_groups.groups(self, request)),
                name="queues_deadletter_groups",
            ),
            path(
                "groups/<str:fingerprint>/replay/",
                guarded(lambda request, fingerprint: dead_letter_groups.replay_group(self, request, fingerprint)),
                name="queues_deadletter_replay_group",
            ),
            path(
                "groups/<str:fingerprint>/ignore/",
                guarded(lambda request, fingerprint: ignored_failures.ignore_group(self, request, fingerprint)),
                name="queues_deadletter_ignore_group",
            ),
            path(
                "groups/<str:fingerprint>/stop-ignoring/",
                guarded(lambda request, fingerprint: ignored_failures.stop_ignoring_group(self, request, fingerprint)),
                name="queues_deadletter_stop_ignoring_group",
            ),
            *super().get_urls(),
        ]

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> Any:
        letter = self.get_object(request, str(object_id))
        return [] if letter is None or letter.handled_at else super().get_actions_detail(request, object_id)

    @display(description="Dead letter")
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
        error = redaction.hide_in_text(row.error[:1000])
        return error[:120] + ("…" if len(error) > 120 else "")

    @display(description="Resolution", label={"replayed": "success", "discarded": "default", "open": "warning"})
    def handled(self, row: DeadLetter) -> str | None:
        return row.handled_as or "open"

    @display(description="Error")
    def shown_error(self, row: DeadLetter) -> str:
        return format_html('<pre class="sl-json">{}</pre>', redaction.hide_in_text(row.error) or "–")

    @display(description="Last traceback")
    def shown_traceback(self, row: DeadLetter) -> str:
        last = traceback_of(row)
        return format_html('<pre class="sl-json">{}</pre>', redaction.hide_in_text(last)) if last else "–"

    @display(description="Payload")
    def shown_payload(self, row: DeadLetter) -> str:
        if row.payload is None:
            return pretty(redaction.hide(registry.redacted(row.type, row.job.payload)))
        return format_html(
            '{}<p class="sl-dim">The job was replayed with another payload; its page shows the present one.</p>',
            pretty(redaction.hide(registry.redacted(row.type, row.payload))),
        )

    @display(description="Job")
    def job_link(self, row: DeadLetter) -> str:
        return format_html(
            '<a class="sl-link" href="{}">{}</a>', reverse("admin:queues_job_change", args=[row.job_id]), row.job.uid
        )

    @display(description="Similar failures")
    def alike(self, row: DeadLetter) -> str:
        return format_html(
            '<a class="sl-link" href="{}?q={}">Show dead letters with this fingerprint</a>',
            reverse("admin:queues_deadletter_changelist"),
            row.fingerprint,
        )
