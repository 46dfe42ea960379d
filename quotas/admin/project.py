"""Projects."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest
from unfold.decorators import display

from quotas.admin.base import SluiceAdmin
from quotas.models import Project


@admin.register(Project)
class ProjectAdmin(SluiceAdmin):
    empty_text = "A project owns API keys, jobs and its own use of quotas."
    project_lookup = "pk"
    change_form_outer_before_template = "admin/sluice/project_live.html"
    ordering = ["slug"]  # named here, since the model's own is not used where rows are counted by group
    list_display = ["slug", "name", "weight", "tier", "keys_in_force", "created_at"]
    list_filter = ["tier"]
    search_fields = ["slug", "name"]
    autocomplete_fields = ["tier", "members"]
    fieldsets = [
        (None, {"fields": ["slug", "name", "weight", "tier"]}),
        (
            "Members",
            {
                "fields": ["members"],
                "description": "Members sign in here and see only this project. Give them the role viewer or operator as well.",
            },
        ),
    ]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        in_force = Count("api_keys", filter=Q(api_keys__revoked_at=None))
        rows: QuerySet[Any] = super().get_queryset(request).select_related("tier").annotate(in_force=in_force)
        return rows

    @display(description="API keys")
    def keys_in_force(self, row: Any) -> int:
        return int(row.in_force)
