"""Overrides: another limit for one subject, until a time and for a reason."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest
from django.utils import timezone
from unfold.contrib.filters.admin import AutocompleteSelectFilter
from unfold.decorators import display

from quotas.admin.base import SluiceAdmin
from quotas.models import Override


class OverrideForm(forms.ModelForm):
    """The override's own reason is also the audit entry's."""

    def clean_limit(self) -> Any:
        limit = self.cleaned_data["limit"]
        if limit is not None and limit < 0:
            raise forms.ValidationError("Must be 0 or more: 0 blocks everything; blank = unlimited.")
        return limit


@admin.register(Override)
class OverrideAdmin(SluiceAdmin):
    empty_text = "An override gives one subject another limit than its policy, until a time and for a reason."
    project_lookup = "project"
    form = OverrideForm
    list_display = ["policy", "key", "project", "shown_limit", "until", "state", "reason"]
    list_filter = [("policy", AutocompleteSelectFilter), ("project", AutocompleteSelectFilter)]
    list_select_related = ["policy", "project"]
    search_fields = ["key", "reason"]
    autocomplete_fields = ["policy", "project"]

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return ["policy", "key", "project", "limit", "until", "reason"]

    @display(description="Limit", ordering="limit")
    def shown_limit(self, row: Override) -> str:
        return "unlimited" if row.limit is None else f"{row.limit:,}"

    @display(description="State", label={"active": "success", "expired": "default"})
    def state(self, row: Override) -> str:
        return "expired" if row.until and row.until <= timezone.now() else "active"
