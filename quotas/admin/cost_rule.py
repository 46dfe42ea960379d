"""Cost rules: what a check costs that names no cost."""

from __future__ import annotations

import re
from typing import Any

from django import forms
from django.contrib import admin

from quotas.admin.base import ReasonForm, SluiceAdmin
from quotas.engine.costs import MAX_COST, is_count, is_unit
from quotas.models import CostRule

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class CostRuleForm(ReasonForm):
    def clean_cost(self) -> Any:
        cost = self.cleaned_data["cost"]
        if not isinstance(cost, dict) or not cost:
            raise forms.ValidationError('Must be a JSON object of units and whole numbers, such as {"requests": 5}.')
        for unit, number in cost.items():
            if not is_unit(unit) or not NAME.fullmatch(unit):
                raise forms.ValidationError(f"{unit!r} is no name of a unit: 1 to 32 letters, digits, dots, dashes.")
            if not is_count(number):
                raise forms.ValidationError(f"{unit}: must be a whole number from 0 to {MAX_COST:,}.")
        return cost


@admin.register(CostRule)
class CostRuleAdmin(SluiceAdmin):
    empty_text = "A cost rule says how much a request to an endpoint counts. Without one, each counts as 1 request."
    form = CostRuleForm
    list_display = ["match", "cost", "updated_at"]
    search_fields = ["match"]
