"""Providers: where accounts call, and what their answers look like."""

from __future__ import annotations

from django.contrib import admin
from django.db.models import Count, QuerySet
from django.http import HttpRequest
from unfold.decorators import display

from quotas.admin.base import SluiceAdmin
from quotas.models import Provider


@admin.register(Provider)
class ProviderAdmin(SluiceAdmin):
    list_display = ["name", "dialect", "base_url", "pools_count", "timeout"]
    list_filter = ["dialect"]
    search_fields = ["name", "base_url"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Provider]:
        return super().get_queryset(request).annotate(pools_count=Count("pools"))

    @display(description="Pools")
    def pools_count(self, row: Provider) -> int:
        return row.pools_count  # type: ignore[attr-defined]
