"""Jobs: a list that stays fast with a million rows, and a page with one job's timeline."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponseBadRequest
from django.urls import path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.text import Truncator
from unfold.contrib.filters.admin import AutocompleteSelectFilter, ChoicesDropdownFilter, FieldTextFilter
from unfold.decorators import display
from unfold.enums import ActionVariant
from unfold.paginator import InfinitePaginator

from queues import job_search, reason_codes, redaction
from queues.admin import job_actions, job_life, job_list, job_payload, job_suggestions
from queues.admin.job_list import ProgressFilter, WhyFilter
from queues.admin.pretty_json import pretty
from queues.errors import AlreadyFinished, QueueError
from queues.models import Job
from queues.selectors.explanation import Explanation, explain
from queues.services import cancel as cancelling
from queues.services import dead_letters
from queues.states import Stage, Status
from quotas.admin.audit import actor_of
from quotas.admin.base import ReadOnlyAdmin
from quotas.admin.bulk import Refused
from quotas.admin.dialogs import why
from quotas.admin.reason_action import reason_action
from quotas.admin.spans import spell_span
from quotas.engine import priorities
from quotas.engine.priorities import PRIORITIES
from quotas.permissions import ACT_ON_JOBS

STATUSES = {
    Status.PENDING.label: "default",
    Status.EXECUTING.label: "info",
    Status.RATE_LIMITED.label: "warning",
    Status.RETRYING.label: "warning",
    Status.COMPLETED.label: "success",
    Status.DEAD.label: "danger",
    Status.CANCELLED.label: "default",
}


def _cancel(request: HttpRequest, job: Job, reason: str) -> None:
    try:
        cancelling.cancel(job.pk, actor=actor_of(request), reason=reason, audited=True)
    except AlreadyFinished as error:
        raise Refused(str(error)) from None


def _retry(request: HttpRequest, job: Job, reason: str) -> None:
    try:
        dead_letters.retry(job, actor=actor_of(request), reason=reason)
    except QueueError as error:
        raise Refused(str(error)) from None


def _readable(story: Explanation) -> Explanation:
    """The same without the secrets in URLs that errors repeat."""
    steps = [replace(step, reason=redaction.hide_in_text(step.reason)) for step in story.timeline]
    return replace(story, timeline=steps)


@admin.register(Job)
class JobAdmin(ReadOnlyAdmin):
    operate_permission = ACT_ON_JOBS
    payload_fields = frozenset({"shown_payload", "shown_result"})
    empty_text = "Jobs appear here once they are submitted with POST /api/v1/jobs or from Python."
    project_lookup = "project"
    list_display = [
        "ident", "shown_status", "user", "age", "duration", "why_it_waits", "type", "queue", "project", "band", "tries", "short_reason",
        "created_at",
    ]  # fmt: skip
    list_filter = [
        ProgressFilter,
        WhyFilter,
        ("status", ChoicesDropdownFilter),
        ("queue", AutocompleteSelectFilter),
        ("project", AutocompleteSelectFilter),
        ("type", FieldTextFilter),
    ]
    list_filter_submit = True
    list_select_related = ["queue", "project"]
    list_per_page = 50
    sortable_by = ()
    ordering = ["-id"]
    search_fields = ["uid__exact"]
    search_help_text = "Job ID, user, or user: key.NAME: error: queue: type: age:>10m batch: account: pool: policy:"
    list_before_template = "admin/sluice/job_list.html"
    paginator = InfinitePaginator
    change_form_outer_before_template = "admin/sluice/job_story.html"
    actions_detail = ["cancel", "retry"]
    fieldsets = [
        (
            None,
            {
                "fields": [
                    ("shown_id", "shown_status"),
                    "shown_reason",
                    ("type", "queue"),
                    ("project", "user"),
                    ("band", "batch_link"),
                    ("created_at", "finished_at"),
                ]
            },
        ),
        (
            "Execution",
            {
                "fields": [
                    ("stage", "not_before"),
                    ("attempts_counted", "max_attempts"),
                    ("attempts_made", "replays"),
                    ("account", "worker"),
                    ("timeout", "shown_delivery"),
                    ("cost", "shown_keys"),
                    ("suspect", "deaths"),
                ],
                "classes": ["tab"],
            },
        ),
        ("Payload and result", {"fields": ["shown_payload", "shown_result", "shown_error"], "classes": ["tab"]}),
    ]
    readonly_fields = [
        "shown_id",
        "shown_status",
        "band",
        "batch_link",
        "shown_payload",
        "shown_result",
        "shown_reason",
        "shown_error",
        "shown_delivery",
        "shown_keys",
    ]
    actions = job_actions.ACTIONS

    cancel = reason_action(
        "cancel", "Cancel", icon="cancel", variant=ActionVariant.DANGER, done="Cancelled.", submit="Cancel the job",
        act=lambda request, job, dialog: _cancel(request, job, why(dialog)), question="Cancel this job?",
        detail="If it is running, it is stopped within about a second.",
    )  # fmt: skip
    retry = reason_action(
        "retry", "Retry", icon="replay", variant=ActionVariant.PRIMARY, done="Requeued.",
        act=lambda request, job, dialog: _retry(request, job, why(dialog)), question="Retry this job?",
        detail="It is requeued with its attempts reset, under the same quotas.",
    )  # fmt: skip

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows = super().get_queryset(request)
        # A list needs neither payloads nor results, which may be large.
        plain = request.resolver_match is not None and request.resolver_match.url_name == "queues_job_changelist"
        return rows.defer("payload", "result", "error", "keys", "cost") if plain else rows

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        row = super().get_object(request, object_id, from_field)
        if row is not None:
            row.address = job_payload.address_of(request)
        return row

    def get_urls(self) -> Any:
        guarded = self.admin_site.admin_view(lambda request: job_suggestions.view(self, request))
        return [path("suggestions/", guarded, name="queues_job_suggestions"), *super().get_urls()]

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        shown: dict[str, Any] = {}
        if request.method == "GET" and self.has_view_permission(request):
            try:
                if job_list.NEWER in request.GET:
                    return job_list.newer(self, request)
                shown = job_list.head(self, request)
            except IncorrectLookupParameters:
                if job_list.NEWER in request.GET:
                    return HttpResponseBadRequest()
                # Django's own view leads to the list without them.
        return super().changelist_view(request, {**(extra_context or {}), **shown})

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        changelist = super().get_changelist_instance(request)
        if request.method == "GET" and not getattr(request, job_list.COUNTING, False):
            job_list.explained(list(changelist.result_list))
            # The paginator knows no total; the offer to select all that match names it.
            changelist.result_count = getattr(request, job_list.TOTAL, len(changelist.result_list))
        return changelist

    def get_search_results(self, request: HttpRequest, queryset: QuerySet[Any], search_term: str) -> Any:
        return job_search.parse(search_term).apply(queryset), False

    @display(description="Delivery")
    def shown_delivery(self, row: Job) -> str:
        return row.delivery_mode.replace("_", " ")

    @display(description="Keys")
    def shown_keys(self, row: Job) -> str:
        return pretty(row.keys) if row.keys else "–"

    @display(description="Why it waits")
    def why_it_waits(self, row: Any) -> str:
        if getattr(row, "why", None) is None:
            return "–"
        code, name = row.why
        reason = reason_codes.REASONS[code]
        text = f"{reason.label}: {name}" if name else reason.label
        return format_html('<span title="{} {}">{}</span>', reason.means, reason.remedy, text)

    def change_view(self, request: HttpRequest, object_id: str, *args: Any, **kwargs: Any) -> Any:
        job = self.get_object(request, object_id)
        if job is not None:
            kwargs["extra_context"] = {
                **(kwargs.get("extra_context") or {}),
                "story": _readable(explain(job)),
                "life": job_life.drawn(job, request),
                "ended": job.stage == Stage.DONE,
                "attempts": job_life.attempts(job),
                "letters": list(job.dead_letters.order_by("-pk")[:10]),
                "title": f"Job {job.uid}",
                "subtitle": job.type,
            }
        return super().change_view(request, object_id, *args, **kwargs)

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> Any:
        """Only the buttons that the job's state allows."""
        job = self.get_object(request, str(object_id))
        able = set() if job is None else {"retry"} if job.status == Status.DEAD else set()
        if job is not None and job.stage != Stage.DONE:
            able.add("cancel")
        return [
            one for one in super().get_actions_detail(request, object_id) if one.action_name.rpartition("_")[2] in able
        ]

    @display(description="Status", label=STATUSES)
    def shown_status(self, row: Job) -> str:
        return row.get_status_display()

    @display(description="Job")
    def ident(self, row: Job) -> str:
        return row.uid

    @display(description="ID")
    def shown_id(self, row: Job) -> str:
        return format_html("<span data-copy>{}</span>", row.uid)

    @display(description="Age")
    def age(self, row: Job) -> str:
        return spell_span(timezone.now() - row.created_at)

    @display(description="Run time")
    def duration(self, row: Job) -> str:
        if row.started_at is None:
            return "–"
        return spell_span((row.finished_at or timezone.now()) - row.started_at)

    @display(description="Status reason")
    def short_reason(self, row: Job) -> str:
        return Truncator(redaction.hide_in_text(row.reason)).chars(80) or "–"

    @display(description="Status reason")
    def shown_reason(self, row: Job) -> str:
        return redaction.hide_in_text(row.reason) or "–"

    @display(description="Error")
    def shown_error(self, row: Job) -> str:
        return redaction.hide_in_text(row.error) or "–"

    @display(description="Attempts")
    def tries(self, row: Job) -> int:
        return row.attempts_made

    @display(description="Priority")
    def band(self, row: Job) -> str:
        band = priorities.band(row.priority)
        return band if row.priority == PRIORITIES[band] else f"{band} {row.priority}"

    @display(description="Batch")
    def batch_link(self, row: Job) -> str:
        if row.batch_id is None:
            return "–"
        return format_html(
            '<a class="sl-link" href="{}">{}</a>',
            reverse("admin:queues_batch_change", args=[row.batch_id]),
            row.batch or row.batch_id,
        )

    @display(description="Payload")
    def shown_payload(self, row: Job) -> str:
        return job_payload.shown(row, getattr(row, "address", ""))

    @display(description="Result")
    def shown_result(self, row: Job) -> str:
        return pretty(redaction.hide(row.result))
