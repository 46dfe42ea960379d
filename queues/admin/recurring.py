"""Recurring jobs: submitted once per tick of a cron expression."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest
from unfold.contrib.filters.admin import AutocompleteSelectFilter

from queues import registry
from queues.models import Recurring
from queues.services.recurring import is_cron
from quotas.admin.base import ReasonForm, SluiceAdmin
from quotas.admin.bulk import switch_actions
from quotas.admin.fields import TimeZoneField
from quotas.permissions import may_see_payloads


class RecurringForm(ReasonForm):
    """What could not be submitted at its time is refused here."""

    timezone = TimeZoneField()

    def clean_cron(self) -> str:
        cron: str = self.cleaned_data["cron"]
        if not is_cron(cron):
            raise forms.ValidationError(
                "Must have five fields: minute, hour, day, month, weekday, such as `0 3 * * *`."
            )
        return cron

    def clean(self) -> dict[str, Any]:
        given = super().clean() or {}
        job_type = registry.get(given.get("type", ""))
        if job_type is None:
            self.add_error("type", "Unknown job type.")
        else:
            for error in job_type.validate(given.get("payload") or {}, "/payload"):
                self.add_error("payload", f"{error.pointer}: {error.detail}")
        return given


@admin.register(Recurring)
class RecurringAdmin(SluiceAdmin):
    empty_text = "A recurring job is submitted at each tick of a cron expression."
    project_lookup = "project"
    payload_fields = frozenset({"payload"})
    form = RecurringForm
    list_display = ["name", "enabled", "cron", "timezone", "type", "project", "next_at", "last_at", "last_error"]
    list_filter = [("project", AutocompleteSelectFilter)]
    list_select_related = ["project"]
    search_fields = ["name", "type"]
    autocomplete_fields = ["project", "queue"]
    actions = switch_actions(Recurring, "They are not submitted until they are enabled.")
    readonly_fields = ["next_at", "last_at", "last_error"]
    fieldsets = [
        (None, {"fields": [("name", "enabled"), ("cron", "timezone"), ("type", "project"), ("queue", "priority")]}),
        ("Job", {"fields": ["payload"]}),
        ("State", {"fields": [("next_at", "last_at"), "last_error"]}),
    ]

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """The form shows the payload, so that changing a row needs to see it."""
        return may_see_payloads(request.user) and super().has_change_permission(request, obj)

    def save_model(self, request: Any, obj: Any, form: Any, change: bool) -> None:
        if {"cron", "timezone"} & set(form.changed_data):
            obj.next_at = None  # the dispatcher works it out again
        super().save_model(request, obj, form, change)
