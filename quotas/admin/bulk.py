"""Actions on chosen rows of a list: first a page that says on how many, then the act, row by row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.admin import helpers
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from unfold.widgets import UnfoldAdminTextInputWidget

SHOWN = 20


class BulkForm(forms.Form):
    reason = forms.CharField(max_length=500, help_text="Goes into the audit trail.", widget=UnfoldAdminTextInputWidget)


class Refused(Exception):
    """A row was not in a state for the action; its text is shown."""


def bulk_action(
    name: str,
    *,
    question: str,
    done: str,
    act: Callable[[HttpRequest, Any, str], object],
    permission: str = "operate",
    danger: bool = False,
) -> Callable[..., HttpResponse | None]:
    """An action for `ModelAdmin.actions`.

    `act(request, row, reason)` does it to one row and raises `Refused` where it can't. `question` and `done` are
    sentences with `{count}`.
    """

    def action(model_admin: Any, request: HttpRequest, rows: QuerySet[Any]) -> HttpResponse | None:
        form = BulkForm(request.POST if "confirmed" in request.POST else None)
        if form.is_valid():
            _do(request, rows, form.cleaned_data["reason"], act, done)
            return None
        count = rows.count()
        context = {
            **model_admin.admin_site.each_context(request),
            "title": name,
            "question": question.format(count=count),
            "rows": list(rows[:SHOWN]),
            "more": max(0, count - SHOWN),
            "form": form,
            "action": action.__name__,
            "checkbox": helpers.ACTION_CHECKBOX_NAME,
            "selected": request.POST.getlist(helpers.ACTION_CHECKBOX_NAME),
            "across": request.POST.get("select_across", "0"),
            "opts": model_admin.model._meta,
            "danger": danger,
            "submit": name,
            "media": model_admin.media,
        }
        return TemplateResponse(request, "admin/sluice/confirm.html", context)

    action.__name__ = name.lower().replace(" ", "_")
    action.short_description = name  # type: ignore[attr-defined]
    action.allowed_permissions = [permission]  # type: ignore[attr-defined]
    return action


def _do(
    request: HttpRequest, rows: QuerySet[Any], reason: str, act: Callable[[HttpRequest, Any, str], object], done: str
) -> None:
    count, refused = 0, []
    for row in rows:
        try:
            act(request, row, reason)
            count += 1
        except Refused as why:
            refused.append(f"{row}: {why}")
    if count:
        messages.success(request, done.format(count=count))
    if refused:
        more = f" And {len(refused) - 5} more." if len(refused) > 5 else ""
        messages.warning(request, f"Left alone: {'; '.join(refused[:5])}.{more}")
