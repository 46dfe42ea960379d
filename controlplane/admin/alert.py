"""Alerts: open and past problems."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from unfold.contrib.filters.admin import ChoicesDropdownFilter
from unfold.decorators import display
from unfold.enums import ActionVariant

from controlplane.alerts import records
from controlplane.alerts.kinds import KINDS, NEXT
from controlplane.models import Alert
from queues.models import Queue
from quotas.admin.audit import actor_of
from quotas.admin.base import ReadOnlyAdmin
from quotas.admin.bulk import Refused, bulk_action, listing
from quotas.admin.dialogs import why
from quotas.admin.reason_action import reason_action
from quotas.admin.spans import spell_span
from quotas.admin.visibility import project_ids
from quotas.models import Account, Policy, Pool, Project
from quotas.moments import spell_moment
from quotas.permissions import may_act
from quotas.services.row_actions import of


class OverFilter(admin.SimpleListFilter):
    title = "status"
    parameter_name = "over"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("all", "all"), ("yes", "resolved")]

    def choices(self, changelist: Any) -> Any:
        found = list(super().choices(changelist))
        found[0]["display"] = "open"
        return found

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if self.value() is None:
            return queryset.filter(resolved_at=None) if listing(request) else queryset
        return queryset if self.value() == "all" else queryset.exclude(resolved_at=None)


class KindFilter(admin.SimpleListFilter):
    title = "kind"
    parameter_name = "kind"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(kind, kind.replace("_", " ")) for kind in KINDS]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(kind=self.value()) if self.value() else queryset


def target_of(alert: Alert) -> str | None:
    """The page of the object of an alert, by its facts; None if the object is gone."""
    facts = alert.facts
    rows: Any
    if "account" in facts:
        rows = Account.objects.filter(pool__name=facts.get("pool"), name=facts["account"])
    elif "pool" in facts:
        rows = Pool.objects.filter(name=facts["pool"])
    elif "policy" in facts:
        rows = Policy.objects.filter(name=facts["policy"])
    elif "queue" in facts:
        rows = Queue.objects.filter(name=facts["queue"])
    else:
        return None
    pk = rows.values_list("pk", flat=True).first()
    options = rows.model._meta
    return reverse(f"admin:{options.app_label}_{options.model_name}_change", args=[pk]) if pk else None


def _acknowledge(request: HttpRequest, alert: Alert, reason: str) -> None:
    if not records.acknowledge(alert, actor=actor_of(request), reason=reason):
        raise Refused("already acknowledged or resolved")


def _resolve(request: HttpRequest, alert: Alert, reason: str) -> None:
    if not records.resolve(alert, actor=actor_of(request), reason=reason):
        raise Refused("already resolved")


@admin.register(Alert)
class AlertAdmin(ReadOnlyAdmin):
    empty_text = "Open alerts appear here: open breakers, queues that fall behind, many failures."
    shared = True  # of a project's members, those with their project
    list_display = ["shown_severity", "shown_kind", "subject", "summary", "shown_state", "opened_at", "count"]
    list_display_links = ["shown_severity", "shown_kind", "subject"]
    list_filter = [OverFilter, KindFilter, ("severity", ChoicesDropdownFilter)]
    search_fields = ["subject__startswith"]
    search_help_text = "Subject prefix, such as `llm/`"
    sortable_by = ()
    actions_detail = ["acknowledge", "resolve"]
    actions = [
        bulk_action(
            of(Alert, "acknowledge"), question="Acknowledge {count} {noun}? They stay open until they are resolved.",
            done="{count} {noun} acknowledged.",
        ),
        bulk_action(
            of(Alert, "resolve"), question="Resolve {count} {noun}? They reopen only on a new occurrence.",
            done="{count} {noun} resolved.",
        ),
    ]  # fmt: skip
    fieldsets = [
        (None, {"fields": [("shown_severity", "shown_kind"), "shown_subject", "summary", "shown_next"]}),
        ("When", {"fields": [("opened_at", "last_seen"), ("count", "shown_state"), ("shown_acknowledged",)]}),
        ("Notifications", {"fields": ["shown_notices"]}),
    ]
    readonly_fields = [
        "shown_subject",
        "shown_next",
        "shown_severity",
        "shown_kind",
        "shown_state",
        "shown_acknowledged",
        "shown_notices",
    ]

    acknowledge = reason_action(
        "acknowledge", "Acknowledge", icon="visibility", done="{row} is acknowledged.",
        act=lambda request, row, dialog: _acknowledge(request, row, why(dialog)),
        question="Acknowledge this alert?", detail="It stays open until it is resolved.",
    )  # fmt: skip
    resolve = reason_action(
        "resolve", "Resolve", icon="check", variant=ActionVariant.SUCCESS, done="{row} is resolved.",
        act=lambda request, row, dialog: _resolve(request, row, why(dialog)),
        question="Resolve this alert?", detail="It reopens only on a new occurrence.",
    )  # fmt: skip

    def has_operate_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Whether the user may act on something that alerts are about."""
        return may_act(request.user)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows = super().get_queryset(request)
        mine = project_ids(request.user)
        if mine is None:
            return rows
        return rows.filter(project__in=Project.objects.filter(pk__in=mine).values("slug"))

    @display(
        description="Severity", label={"info": "info", "warning": "warning", "critical": "danger"}, ordering="severity"
    )
    def shown_severity(self, row: Alert) -> str:
        return row.severity

    @display(description="Subject")
    def shown_subject(self, row: Alert) -> Any:
        """With a link to the alert's object."""
        address = target_of(row)
        return format_html('<a class="sl-link" href="{}">{}</a>', address, row.subject) if address else row.subject

    @display(description="Next")
    def shown_next(self, row: Alert) -> str:
        return NEXT.get(row.kind, "–")

    @display(description="Kind")
    def shown_kind(self, row: Alert) -> str:
        return KINDS.get(row.kind, row.kind)

    @display(description="State", label={"open": "danger", "acknowledged": "info", "resolved": "success"})
    def shown_state(self, row: Alert) -> str:
        return "resolved" if row.resolved_at else "acknowledged" if row.acknowledged_at else "open"

    @display(description="Acknowledged")
    def shown_acknowledged(self, row: Alert) -> str:
        parts = []
        if row.acknowledged_at:
            parts.append(f"acknowledged by {row.acknowledged_by} at {spell_moment(row.acknowledged_at)}")
        if row.resolved_at:
            how = f"resolved by {row.resolved_by}" if row.resolved_by else "auto-resolved"
            parts.append(f"{how} at {spell_moment(row.resolved_at)}")
        return ", ".join(parts) or "unacknowledged"

    @display(description="Notifications")
    def shown_notices(self, row: Alert) -> Any:
        lines = []
        for notice in row.notices.select_related("rule").order_by("pk")[:50]:
            if notice.delivered_at:
                state = f"delivered at {spell_moment(notice.delivered_at)}"
            elif notice.due_at is None:
                state = notice.error
            else:
                next_try = max(notice.due_at - timezone.now(), timedelta())
                state = f"next attempt in {spell_span(next_try)}" + (f", last: {notice.error}" if notice.error else "")
            lines.append((notice.event, notice.rule.name, state))
        if not lines:
            return "No alert rule matches."
        return format_html("<ul>{}</ul>", format_html_join("", "<li>{} to {}: {}</li>", lines))

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        row = super().get_object(request, object_id, from_field)
        if row is not None:
            row.page_title = f"{KINDS.get(row.kind, row.kind)}: {row.subject}"
        return row

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> Any:
        """Only the actions that would change something."""
        row = self.get_object(request, str(object_id))
        able = set()
        if row is not None and row.resolved_at is None:
            able = {"resolve"} if row.acknowledged_at else {"acknowledge", "resolve"}
        prefix = "controlplane_alert_"
        return [
            one
            for one in super().get_actions_detail(request, object_id)
            if one.action_name.removeprefix(prefix) in able
        ]
