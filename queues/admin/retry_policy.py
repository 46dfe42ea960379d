"""Retry policies: when and how often a failed job is tried again."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin

from queues.models import RetryPolicy
from quotas.admin.base import ReasonForm, SluiceAdmin


class RetryPolicyForm(ReasonForm):
    def clean_by_category(self) -> Any:
        given = self.cleaned_data["by_category"] or {}
        if not isinstance(given, dict):
            raise forms.ValidationError('Must be a JSON object by category, such as {"auth": "never"}.')
        for category, rule in given.items():
            fits = rule == "never" or (
                isinstance(rule, dict)
                and set(rule) <= {"initial", "max", "strategy", "max_attempts", "jitter"}
                and all(not isinstance(value, bool) for value in rule.values())
            )
            if not fits:
                raise forms.ValidationError(
                    f'{category}: must be "never" or an object such as {{"initial": 0.5, "max": 4}}.'
                )
        return given


@admin.register(RetryPolicy)
class RetryPolicyAdmin(SluiceAdmin):
    shared = True
    form = RetryPolicyForm
    list_display = ["name", "strategy", "initial", "max", "max_attempts", "jitter", "updated_at"]
    search_fields = ["name"]
