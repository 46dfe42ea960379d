"""An account's state in words: in lists, in filters and on the dashboard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest

STATES = {
    "available": "success",
    "cooling down": "warning",
    "breaker open": "danger",
    "breaker half open": "info",
    "disabled": "default",
    "low priority waits": "info",
    "pool paused": "warning",
}
NAMES = {
    "available": "available",
    "cooling_down": "cooling down",
    "open": "breaker open",
    "half_open": "breaker half open",
    "disabled": "disabled",
    "paused": "low priority waits",
}
AVAILABLE = Q(state__in=["available", "paused"], pool__paused_at=None)
"""Takes calls, though perhaps not of low priority."""


def named(state: str, *, paused: bool = False) -> str:
    """An account's state in words. The engine's `paused` is either its pool's pause, or a quota that is nearly used up
    and is reserved for higher priorities."""
    return "pool paused" if state == "paused" and paused else NAMES.get(state, state)


def headroom(learned: Mapping[str, Any]) -> str:
    """What is left of the quotas that the provider reports for the account as a whole."""
    return ", ".join(
        f"{quota['remaining']:,} of {quota['limit']:,} {unit}"
        for unit, quota in sorted(learned.items())
        if isinstance(quota, dict) and isinstance(quota.get("remaining"), int) and isinstance(quota.get("limit"), int)
    )


class StateFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return list(NAMES.items())

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(state=self.value()) if self.value() else queryset
