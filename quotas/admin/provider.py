"""Providers: where accounts call, and what their answers look like."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Count, QuerySet
from django.http import HttpRequest
from unfold.decorators import display

from quotas.admin.base import ReasonForm, SluiceAdmin
from quotas.engine.dialects import settings
from quotas.models import Provider
from quotas.suggestions import did_you_mean


class ProviderForm(ReasonForm):
    def clean(self) -> dict[str, Any]:
        given = super().clean() or {}
        if "settings" in given:
            given["settings"] = given["settings"] or {}
            for misfit in settings.misfits(str(given.get("dialect")), given["settings"]):
                place = ".".join(map(str, misfit.path))
                hint = did_you_mean(misfit.path[-1], misfit.known) if misfit.known else ""
                self.add_error("settings", f"{place} {misfit.detail}{hint}".strip())
        return given


@admin.register(Provider)
class ProviderAdmin(SluiceAdmin):
    empty_text = "A provider is an API that accounts call. Add one, then a pool, then its accounts."
    form = ProviderForm
    list_display = ["name", "dialect", "base_url", "pools_count", "timeout"]
    list_filter = ["dialect"]
    search_fields = ["name", "base_url"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Provider]:
        rows: QuerySet[Provider] = super().get_queryset(request).annotate(pools_count=Count("pools"))
        return rows

    @display(description="Pools")
    def pools_count(self, row: Provider) -> int:
        return int(row.pools_count)  # type: ignore[attr-defined]
