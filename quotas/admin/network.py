"""Networks that skip IP policies, or are refused."""

from __future__ import annotations

import ipaddress
from typing import Any

from django import forms
from django.contrib import admin
from unfold.decorators import display

from quotas.admin.base import ReasonForm, SluiceAdmin
from quotas.admin.fields import ListField
from quotas.models import Network


class NetworkForm(ReasonForm):
    cidrs = ListField(
        required=True, label="CIDR ranges", help_text="One per line, such as `192.0.2.0/24` or `2001:db8::/32`."
    )

    def clean_cidrs(self) -> Any:
        cidrs = self.cleaned_data["cidrs"]
        for cidr in cidrs:
            try:
                ipaddress.ip_network(cidr)
            except ValueError as error:
                raise forms.ValidationError(f"Not a CIDR range: {error}.") from None
        return cidrs


@admin.register(Network)
class NetworkAdmin(SluiceAdmin):
    empty_text = "A network names address ranges that skip IP policies or are refused."
    form = NetworkForm
    list_display = ["name", "what", "shown_cidrs", "updated_at"]
    list_filter = ["action"]
    search_fields = ["name"]

    @display(description="Action", label={"allow": "success", "deny": "danger"})
    def what(self, row: Network) -> str:
        return row.action

    @display(description="CIDR ranges")
    def shown_cidrs(self, row: Network) -> str:
        more = f" and {len(row.cidrs) - 5} more" if len(row.cidrs) > 5 else ""
        return ", ".join(row.cidrs[:5]) + more
