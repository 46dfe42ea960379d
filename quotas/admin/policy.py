"""Policies: limits that apply to callers."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import path
from unfold.admin import TabularInline
from unfold.contrib.filters.admin import AutocompleteSelectFilter, ChoicesDropdownFilter
from unfold.decorators import display
from unfold.enums import ActionVariant

from quotas.admin import adaptive_fields, policy_backtest
from quotas.admin.adaptive_fields import AdaptiveFields
from quotas.admin.audit import actor_of
from quotas.admin.base import ReasonForm, SluiceAdmin
from quotas.admin.bulk import bulk_action, switch_actions
from quotas.admin.dialogs import ResetDialog, why
from quotas.admin.fields import FractionsField, LinesField, TimeZoneField
from quotas.admin.reason_action import reason_action
from quotas.admin.spans import spell
from quotas.admin.visibility import project_ids
from quotas.models import Override, Policy
from quotas.models.policy import COUNTED
from quotas.permissions import ACT_ON_LIMITS
from quotas.services import usage
from quotas.services.row_actions import of
from quotas.snapshot.adaptive_rule import AdaptiveRule
from quotas.snapshot.patterns import BadPattern, compile_pattern
from quotas.snapshot.policies import CompiledPolicy, effective

WINDOWED = ("sliding_window", "sliding_window_counter", "fixed_window", "token_bucket")
FIELDS_OF = {
    "window": WINDOWED,
    "burst": ("token_bucket",),
    "period": ("calendar",),
    "timezone": ("calendar", "fixed_window"),
    "lease_ttl": ("concurrency",),
}
"""The algorithms that use a field; under others the form hides it."""


class PolicyForm(AdaptiveFields, ReasonForm):
    """What a limiter could not enforce is refused here, before any process loads it."""

    timezone = TimeZoneField()
    exempt = LinesField(help_text="Subjects that this policy does not apply to, one per line.")
    excluded_paths = LinesField(help_text="Endpoint patterns that this policy does not apply to, one per line.")
    warn_at = FractionsField(
        label="Warn at",
        help_text="Fractions of the limit at which an event is emitted once, such as `0.6, 0.8, 0.95`.",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, algorithms in FIELDS_OF.items():
            if name in self.fields:
                # Not the theme's `conditional_fields`: a field named `window` would hide the browser's own from it.
                self.fields[name].widget.attrs["data-only-for"] = f"algorithm {' '.join(algorithms)}"

    def clean(self) -> dict[str, Any]:
        given = super().clean() or {}
        algorithm = given.get("algorithm")
        need = {
            "sliding_window": ["window"],
            "sliding_window_counter": ["window"],
            "fixed_window": ["window"],
            "token_bucket": ["window"],
            "calendar": ["period"],
        }
        for name in need.get(str(algorithm), []):
            if not given.get(name):
                self.add_error(name, f"Required for {str(algorithm).replace('_', ' ')}.")
        for name in ("limit", "burst"):
            if given.get(name) is not None and given[name] < 0:
                self.add_error(name, "Must be 0 or more.")
        if given.get("window") is not None and not 0 < given["window"] < 1e9:
            self.add_error("window", "Must be more than 0 seconds.")
        if given.get("scope") == "custom" and not given.get("key_name"):
            self.add_error("key_name", "Required for scope custom.")
        if given.get("scope") == "endpoint" and not given.get("match"):
            self.add_error("match", "Required for scope endpoint, such as `POST /v1/*`.")
        pause_at = given.get("pause_at")
        if pause_at is not None and not 0 < pause_at <= 1:
            self.add_error("pause_at", "Must be a fraction above 0, up to 1.")
        if not all(0 < share <= 1 for share in given.get("warn_at") or []):
            self.add_error("warn_at", "Must be fractions above 0, up to 1, such as `0.6, 0.8, 0.95`.")
        for pattern in given.get("excluded_paths") or []:
            try:
                compile_pattern(pattern)
            except BadPattern as error:
                self.add_error("excluded_paths", f"{pattern!r}: {error}")
        self.clean_adaptive(given)
        self._clear_other_algorithms(given)
        return given

    def _clear_other_algorithms(self, given: dict[str, Any]) -> None:
        """A field that the form hides under the chosen algorithm is not kept: no user would see that it is set."""
        blank = {"window": None, "burst": None, "period": ""}
        for name, empty in blank.items():
            if given.get("algorithm") and given["algorithm"] not in FIELDS_OF[name]:
                given[name] = empty
                self.errors.pop(name, None)

    def _post_clean(self) -> None:
        super()._post_clean()  # type: ignore[misc]
        if not self.errors:
            try:
                CompiledPolicy.of(self.instance, [], 64)
            except ValueError as error:
                self.add_error(None, str(error))


def _reset_chosen(request: HttpRequest, policy: Policy, dialog: Any) -> str:
    given = dialog.cleaned_data
    chosen = usage.Selection(policy=policy.name, key=given["key"] or None, project=given["project"] or None)
    cleared = usage.reset(chosen, actor=actor_of(request), reason=why(dialog))
    return f"{cleared} counter{'s' * (cleared != 1)} reset."


class OverrideInline(TabularInline):
    model = Override
    extra = 0
    fields = ["key", "project", "limit", "until", "reason"]
    autocomplete_fields = ["project"]
    tab = True


@admin.register(Policy)
class PolicyAdmin(SluiceAdmin):
    operate_permission = ACT_ON_LIMITS
    empty_text = "A policy limits how much callers may use: per user, project, address, endpoint or key."
    project_lookup = "project"
    form = PolicyForm
    list_display = ["name", "on", "scope", "shown_limit", "algorithm", "project", "tier", "shown_mode", "updated_at"]
    list_filter = [
        ("scope", ChoicesDropdownFilter),
        ("algorithm", ChoicesDropdownFilter),
        ("mode", ChoicesDropdownFilter),
        ("project", AutocompleteSelectFilter),
    ]
    list_select_related = ["project", "tier", "adapted"]
    search_fields = ["name", "match", "key_name"]
    autocomplete_fields = ["project", "tier"]
    inlines = [OverrideInline]
    readonly_fields = ["backtest", "shown_adaptive"]
    actions_detail = ["reset"]
    change_form_outer_before_template = "admin/sluice/policy_live.html"
    actions = [
        bulk_action(
            of(Policy, "reset"), question="Reset all counters of {count} {noun}? Their usage goes back to 0.",
            done="Counters of {count} {noun} reset.", danger=True,
        ),
        *switch_actions(Policy, "They limit no caller until they are enabled."),
    ]  # fmt: skip
    fieldsets = [
        (None, {"fields": [("name", "enabled"), ("unit", "mode")]}),
        (
            "Applies to",
            {"fields": [("scope", "project"), ("key_name", "tier"), "match", "exempt", "excluded_paths"]},
        ),
        (
            "Limit",
            {
                "fields": [
                    ("algorithm", "limit"),
                    ("window", "burst"),
                    ("period", "timezone"),
                    "lease_ttl",
                    "backtest",
                ],
                "description": "Limit changes keep current usage; changing scope, key, match, project, unit, algorithm, "
                "window or period resets counters.",
            },
        ),
        (
            "Near the limit",
            {"fields": [("pause_at", "pause"), ("warn_at", "on_redis_down")]},
        ),
        (
            "Adaptive limit",
            {
                "fields": adaptive_fields.ROWS,
                "classes": ["collapse"],
                "description": "Moves the limit between floor and ceiling by the outcomes of calls.",
            },
        ),
    ]

    reset = reason_action(
        "reset", "Reset counters", icon="restart_alt", variant=ActionVariant.WARNING, form=ResetDialog, submit="Reset",
        act=lambda request, policy, dialog: _reset_chosen(request, policy, dialog),
        question="Reset counters of this policy?", detail="Usage goes back to 0: of one subject, or of all.",
    )  # fmt: skip

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).select_related("project", "tier")

    def get_urls(self) -> Any:
        guarded = self.admin_site.admin_view(lambda request: policy_backtest.view(self, request))
        return [path("backtest/", guarded, name="quotas_policy_backtest"), *super().get_urls()]

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """The backtest needs the form: it is left out for people who may not change the policy."""
        sets = super().get_fieldsets(request, obj)
        may = self.has_change_permission(request, obj) if obj else self.has_add_permission(request)
        if may:
            return sets
        shown = {"Adaptive limit": ["shown_adaptive"]}
        return [
            (
                title,
                {**options, "fields": shown.get(title) or [name for name in options["fields"] if name != "backtest"]},
            )
            for title, options in sets
        ]

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        if change and set(COUNTED) & set(form.changed_data):
            obj.begin_anew()
        super().save_model(request, obj, form, change)

    def has_operate_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Who is bound to projects resets through the API, with a project's key."""
        return project_ids(request.user) is None and super().has_operate_permission(request, obj)

    @display(description="Backtest")
    def backtest(self, row: Policy) -> str:
        return policy_backtest.field(row)

    @display(description="Adaptive limit")
    def shown_adaptive(self, row: Policy) -> str:
        return ", ".join(f"{name} {value}" for name, value in (row.adaptive or {}).items()) or "–"

    @display(description="Enabled", boolean=True, ordering="enabled")
    def on(self, row: Policy) -> bool:
        return row.enabled

    @display(description="Limit", ordering="limit")
    def shown_limit(self, row: Policy) -> str:
        if row.limit is None:
            return "unlimited"
        if row.algorithm == "concurrency":
            span = " at once"
        elif row.algorithm == "calendar":
            span = f" a {row.period}"
        else:
            span = f" in {spell(row.window or 0)}"
        if row.adaptive and hasattr(row, "adapted"):
            moved = {row.pk: (row.adapted.configured, row.adapted.effective)}
            now = effective(row.pk, row.limit, AdaptiveRule.of(row.adaptive), moved)
            return f"{row.limit:,} {row.unit}{span}, now {now:,}"
        return f"{row.limit:,} {row.unit}{span}"

    @display(description="Mode", ordering="mode", label={"enforce": "success", "shadow": "warning"})
    def shown_mode(self, row: Policy) -> str:
        return row.mode
