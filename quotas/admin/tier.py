"""Tiers: plans that projects and users belong to."""

from __future__ import annotations

from django.contrib import admin
from unfold.admin import TabularInline

from quotas.admin.base import SluiceAdmin
from quotas.models import Tier, TierUser


class TierUserInline(TabularInline):
    model = TierUser
    extra = 0
    verbose_name = "user"
    verbose_name_plural = "users, by your own IDs"
    per_page = 50
    ordering = ["user"]


@admin.register(Tier)
class TierAdmin(SluiceAdmin):
    empty_text = "A tier is a plan that projects and users belong to, with policies of its own."
    list_display = ["name", "created_at"]
    search_fields = ["name"]
    inlines = [TierUserInline]
