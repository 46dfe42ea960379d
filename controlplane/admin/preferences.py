"""A person's own preferences, from the user menu."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse

from controlplane.models import Preferences
from quotas.admin import audit
from quotas.admin.fields import TimeZoneField


class PreferencesForm(forms.Form):
    time_zone = TimeZoneField(
        searchable=False,
        help_text="Times on the pages of this console are shown in this zone. The API, exports, notifications and searches by"
        " time use UTC.",
    )


def preferences_page(request: HttpRequest) -> HttpResponse:
    stored = Preferences.objects.filter(user=request.user.pk).first()
    form = PreferencesForm(request.POST or None, initial={"time_zone": stored.time_zone if stored else "UTC"})
    if form.is_valid():
        save(request, form.cleaned_data["time_zone"])
        messages.success(request, f"Times are shown in {form.cleaned_data['time_zone']}.")
        return redirect("admin-preferences")
    given = {**admin.site.each_context(request), "title": "Preferences", "form": form}
    return TemplateResponse(request, "admin/sluice/preferences.html", given)


@transaction.atomic
def save(request: HttpRequest, time_zone: str) -> None:
    """Store the choice, with an entry in the audit log."""
    stored = Preferences.objects.filter(user=request.user.pk).first()
    before = audit.facts(stored) if stored is not None else None
    person: Any = request.user  # signed in
    row, _ = Preferences.objects.update_or_create(user=person, defaults={"time_zone": time_zone})
    audit.record(request, "change" if before else "create", row, before, audit.facts(row), "")


preferences_view = admin.site.admin_view(preferences_page)
