"""Pools of interchangeable accounts."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest
from unfold.admin import TabularInline
from unfold.decorators import display
from unfold.enums import ActionVariant
from unfold.forms import PaginationInlineFormSet

from quotas.admin.base import ReasonForm, SluiceAdmin
from quotas.admin.bulk import bulk_action
from quotas.admin.fields import ListField, NamesOrAllField, TimeZoneField
from quotas.admin.reason_action import reason_action
from quotas.models import Account, Pool, PoolLimit, Project
from quotas.models.policy import COUNTED
from quotas.permissions import ACT_ON_ACCOUNTS
from quotas.services import account_actions
from quotas.services.row_actions import of
from quotas.suggestions import did_you_mean


class PoolForm(ReasonForm):
    fallback = ListField(help_text="Pools to use when this one has no free account: one per line, in this order.")
    projects = NamesOrAllField(
        help_text="Slugs of the projects that may use it, one per line. Leave blank for every project; `none` allows none."
    )

    def clean_fallback(self) -> Any:
        names = self.cleaned_data["fallback"]
        known = set(Pool.objects.values_list("name", flat=True))
        if unknown := [name for name in names if name not in known]:
            raise forms.ValidationError(f"There is no pool {unknown[0]!r}{did_you_mean(unknown[0], known)}.")
        if self.instance.name in names:
            raise forms.ValidationError("A pool can't fall back to itself.")
        return names

    def clean_projects(self) -> Any:
        slugs = self.cleaned_data["projects"]
        if slugs is None:
            return None
        known = set(Project.objects.values_list("slug", flat=True))
        if unknown := [slug for slug in slugs if slug not in known]:
            raise forms.ValidationError(f"There is no project {unknown[0]!r}{did_you_mean(unknown[0], known)}.")
        return list(dict.fromkeys(slugs))

    def clean(self) -> dict[str, Any]:
        given = super().clean() or {}
        floor, start, top = (given.get(f"concurrency_{word}") for word in ("floor", "initial", "ceiling"))
        if start is not None and not (floor if floor is not None else 1) <= start <= (
            top if top is not None else start
        ):
            self.add_error("concurrency_initial", "Must be between floor and ceiling.")
        if given.get("tries") == 0:
            self.add_error("tries", "Must be at least 1.")
        if given.get("pause_at") is not None and not 0 < given["pause_at"] <= 1:
            self.add_error("pause_at", "Must be a fraction above 0, up to 1.")
        return given


class PoolLimitForm(forms.ModelForm):
    timezone = TimeZoneField(searchable=False)


class PoolLimitFormSet(PaginationInlineFormSet):
    def save_existing(self, form: Any, obj: Any, commit: bool = True) -> Any:
        if set(COUNTED) & set(form.changed_data):
            form.instance.generation += 1
        return super().save_existing(form, obj, commit)


class PoolLimitInline(TabularInline):
    model = PoolLimit
    form = PoolLimitForm
    formset = PoolLimitFormSet
    extra = 0
    fields = ["unit", "algorithm", "limit", "window", "burst", "period", "timezone", "per_key", "key_match"]
    verbose_name = "limit"
    verbose_name_plural = "per-account limits"


class AccountInline(TabularInline):
    """The accounts' settings; their states are above, as they are now."""

    model = Account
    extra = 0
    fields = ["name", "weight", "enabled"]
    readonly_fields = fields
    show_change_link = True
    can_delete = False
    per_page = 25

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows: QuerySet[Any] = super().get_queryset(request)
        return rows.select_related("pool")

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Pool)
class PoolAdmin(SluiceAdmin):
    operate_permission = ACT_ON_ACCOUNTS
    empty_text = "A pool has interchangeable accounts of one provider. Add a provider first."
    form = PoolForm
    list_display = ["name", "provider", "strategy", "shown_accounts", "shown_limits", "pause_at", "state"]
    list_filter = ["provider", "strategy"]
    list_select_related = ["provider"]
    search_fields = ["name"]
    autocomplete_fields = ["provider"]
    inlines = [PoolLimitInline, AccountInline]
    change_form_outer_before_template = "admin/sluice/pool_live.html"
    actions_detail = ["pause_pool", "resume_pool"]
    actions = [
        bulk_action(
            of(Pool, "pause"), question="Pause {count} {noun}? Their accounts get no new calls.",
            done="{count} {noun} paused.",
        ),
        bulk_action(of(Pool, "resume"), question="Resume {count} {noun}?", done="{count} {noun} resumed."),
    ]  # fmt: skip
    readonly_fields = ["paused_at", "paused_reason"]
    fieldsets = [
        (None, {"fields": [("name", "provider"), "strategy", ("sticky", "sticky_by"), ("fallback", "projects")]}),
        (
            "Concurrency",
            {
                "fields": ["concurrency_initial", ("concurrency_floor", "concurrency_ceiling")],
                "description": "Calls in flight per account. Leave all blank for no limit.",
            },
        ),
        (
            "Circuit breaker and cooldown",
            {
                "fields": [
                    ("breaker_failures", "breaker_window"),
                    ("breaker_open_for", "breaker_probes"),
                    ("cooldown_default", "cooldown_max"),
                ]
            },
        ),
        ("Gateway", {"fields": ["tries", ("repeat_unsafe", "show_provider_limits")]}),
        ("Hold and pause", {"fields": [("pause_at", "pause"), ("paused_at", "paused_reason")]}),
    ]

    pause_pool = reason_action(
        "pause_pool", "Pause", path="pause", icon="pause", verb=account_actions.pause_pool, done="{row} is paused.",
        question="Pause this pool?",
        detail="No new calls through its accounts. Running calls continue; jobs stay queued.",
    )  # fmt: skip
    resume_pool = reason_action(
        "resume_pool", "Resume", path="resume", icon="play_arrow", variant=ActionVariant.SUCCESS,
        verb=account_actions.resume_pool, done="{row} is resumed.", question="Resume this pool?",
        detail="Its accounts are used again at once.",
    )  # fmt: skip

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows: QuerySet[Any] = super().get_queryset(request).select_related("provider").prefetch_related("limits")
        annotated: QuerySet[Any] = rows.annotate(
            members=Count("accounts", distinct=True),
            able=Count(
                "accounts", filter=Q(accounts__state__in=["available", "paused"], accounts__enabled=True), distinct=True
            ),
            holding=Count("accounts", filter=Q(accounts__state="paused", accounts__enabled=True), distinct=True),
        )
        return annotated

    @display(description="Accounts", ordering="members")
    def shown_accounts(self, row: Any) -> str:
        if row.paused_at:
            return f"0 of {row.members} available"
        holding = f", {row.get_pause_display().lower()} priority waits on {row.holding}" if row.holding else ""
        return f"{row.able} of {row.members} available{holding}"

    @display(description="Per-account limits")
    def shown_limits(self, row: Pool) -> str:
        limits = [
            f"{limit.limit:,} {limit.unit} in {limit.window:g} s"
            for limit in row.limits.all()
            if limit.limit is not None and limit.window
        ]
        return ", ".join(limits) or "–"

    @display(description="State", label={"running": "success", "paused": "warning"})
    def state(self, row: Pool) -> str:
        return "paused" if row.paused_at else "running"

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> Any:
        row = self.get_object(request, str(object_id))
        able = "resume_pool" if row is not None and row.paused_at else "pause_pool"
        return [one for one in super().get_actions_detail(request, object_id) if one.action_name.endswith(able)]
