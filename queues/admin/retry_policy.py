"""Retry policies: when and how often a failed job is tried again."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin

from queues.errors import CATEGORIES
from queues.models import RetryPolicy
from quotas.admin.base import ReasonForm, SluiceAdmin
from quotas.suggestions import did_you_mean

MEMBERS = ("initial", "max", "strategy")
STRATEGIES = ("exponential", "linear", "fixed")
YEAR = 366 * 86400


class RetryPolicyForm(ReasonForm):
    def clean_by_category(self) -> Any:
        given = self.cleaned_data["by_category"] or {}
        if not isinstance(given, dict):
            raise forms.ValidationError('Must be a JSON object by category, such as {"auth": "never"}.')
        for category, rule in given.items():
            if category not in CATEGORIES:
                hint = did_you_mean(category, CATEGORIES)
                raise forms.ValidationError(f"There is no category {category!r}{hint}.")
            if rule != "never":
                _check_exception(category, rule)
        return given


def _check_exception(category: str, rule: Any) -> None:
    """Raises `ValidationError` where a member is unknown or can't be what it is."""
    if not isinstance(rule, dict):
        raise forms.ValidationError(f'{category}: "never", or {{"initial": 0.5, "max": 4}}.')
    for name, value in rule.items():
        if name == "strategy":
            if value not in STRATEGIES:
                hint = did_you_mean(value, STRATEGIES)
                raise forms.ValidationError(f"{category}.strategy: one of {', '.join(STRATEGIES)}{hint}.")
        elif name in ("initial", "max"):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= YEAR:
                raise forms.ValidationError(f"{category}.{name}: seconds, from 0 to a year.")
        else:
            hint = did_you_mean(name, MEMBERS)
            raise forms.ValidationError(f"{category}.{name} is not known{hint}; known are {', '.join(MEMBERS)}.")
    if rule.get("initial", 0) > rule.get("max", YEAR):
        raise forms.ValidationError(f"{category}: initial is above max.")


@admin.register(RetryPolicy)
class RetryPolicyAdmin(SluiceAdmin):
    empty_text = "A retry policy says when and how often a failed job is tried again."
    shared = True
    form = RetryPolicyForm
    list_display = ["name", "strategy", "initial", "max", "max_attempts", "jitter", "updated_at"]
    search_fields = ["name"]
