"""Actions on chosen rows of a list: first a page that says on how many and on which not, then a bulk action.

The act is done on what that page showed: the chosen rows, or all that match the list's filters and were there when the
page was opened. An app above runs bulk actions and connects itself here: rows with a registered function (`RowAction`) are acted
on one after another, a few of them before the answer and many in the background. Lists of jobs and dead letters, which may have a
million rows, begin a bulk action on a filter instead (`together`).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.admin import helpers
from django.db.models import Max, Model, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone

from quotas.admin.reason import ReasonField
from quotas.services.row_actions import Refused as Refused
from quotas.services.row_actions import RowAction, of

SHOWN = 20
"""Rows that the question lists, each with the reason where it is not possible."""


class BulkForm(forms.Form):
    reason = ReasonField()


class CutOff(forms.Form):
    """The highest primary key when the page was shown."""

    newest = forms.IntegerField(min_value=0)


class Token(forms.Form):
    """Stands for one question, so that an answer that is sent twice acts once."""

    token = forms.RegexField(r"[0-9a-f]{26}", strip=False)


def new_token() -> str:
    return secrets.token_hex(13)


def token_of(request: HttpRequest) -> str:
    """The question's token; empty where it has none."""
    form = Token(request.POST)
    return str(form.cleaned_data["token"]) if form.is_valid() else ""


Together = Callable[[HttpRequest, QuerySet[Any], str], None]
"""Takes the rows and the reason."""
Runner = Callable[[HttpRequest, RowAction, QuerySet[Any], str, str], None]
"""Takes the action, the rows, the reason, and what to say when it is done."""
_runners: list[Runner] = []


def connect(runner: Runner) -> None:
    """Let `runner` do what is confirmed."""
    _runners[:] = [runner]


def across(request: HttpRequest) -> bool:
    """Whether an action is on all that match and not on chosen rows."""
    return request.method == "POST" and request.POST.get("select_across") == "1"


def listing(request: HttpRequest) -> bool:
    """Whether a list's default filter applies: in the list, and for all that match it. A
    chosen row stays an action's, whatever became of it since."""
    return request.method == "GET" or across(request)


def bulk_action(
    on: RowAction | str,
    *,
    question: str,
    done: str = "",
    together: Together | None = None,
    permission: str = "operate",
    danger: bool = False,
    name: str = "",
    only: Mapping[str, Any] | Q | None = None,
    left_out: str = "",
    described: Callable[[Any], str] = str,
) -> Callable[..., HttpResponse | None]:
    """An action for `ModelAdmin.actions`: `on` rows by their registered function, or `together`, with a title, on all of them.
    `only` are lookups of the rows that the action can be done to; `left_out` says why the others are not included. A
    registered function brings both. `question` and `done` are sentences with `{count}` and `{noun}`."""
    title = on if isinstance(on, str) else on.title
    if isinstance(on, RowAction):
        only, left_out = on.only, f"{{count}} not included: {on.others}." if on.others else ""

    def action(model_admin: Any, request: HttpRequest, rows: QuerySet[Any]) -> HttpResponse | None:
        chosen = rows
        rows = rows.filter(only) if isinstance(only, Q) else rows.filter(**only or {})
        form = BulkForm(request.POST if "confirmed" in request.POST else None)
        rows, chosen, form, newest = _cut(request, rows, chosen, form)
        if form.is_bound and form.is_valid():
            reason = form.cleaned_data["reason"]
            if not rows.exists():
                why = on.others if isinstance(on, RowAction) and chosen.exists() else ""
                messages.warning(request, f"Nothing was done: {why or 'no rows match any more'}.")
            elif isinstance(on, RowAction):
                _runners[0](request, on, rows, reason, done)
            elif together is not None:
                together(request, rows, reason)
            return None
        rows = rows if together is not None else rows.order_by("pk")
        count = rows.count()
        others = chosen.count() - count if left_out else 0
        listed = [(described(row), on.refusal(request.user, row) if isinstance(on, RowAction) else "")
                  for row in rows[:SHOWN]]  # fmt: skip
        impossible = sum(1 for _, why in listed if why)
        asked = count - impossible if count <= SHOWN else count
        context = _page(model_admin, request) | {
            "title": title,
            "submit": title,
            "danger": danger,
            "question": sentence(question, asked, rows.model),
            "asked": asked,
            "left_out": left_out.format(count=f"{others:,}") if others > 0 else "",
            "rows": listed,
            "impossible": impossible,
            "more": max(0, count - SHOWN),
            "form": form,
            "action": action.__name__,
            "newest": newest,
        }
        return TemplateResponse(request, "admin/sluice/confirm.html", context)

    action.__name__ = name or title.lower().replace(" ", "_")
    action.short_description = title  # type: ignore[attr-defined]
    action.allowed_permissions = [permission]  # type: ignore[attr-defined]
    action.on = on  # type: ignore[attr-defined]
    return action


def _page(model_admin: Any, request: HttpRequest) -> dict[str, Any]:
    """What the page of any question needs: the admin's own context, and the rows that were chosen."""
    return {
        **model_admin.admin_site.each_context(request),
        "opts": model_admin.model._meta,
        "media": model_admin.media,
        "token": request.POST.get("token") or new_token(),
        "checkbox": helpers.ACTION_CHECKBOX_NAME,
        "selected": request.POST.getlist(helpers.ACTION_CHECKBOX_NAME),
        "across": request.POST.get("select_across", "0"),
        "asked_at": timezone.now(),
    }


def _cut(request: HttpRequest, rows: QuerySet[Any], chosen: QuerySet[Any], form: BulkForm) -> tuple[Any, Any, Any, int]:
    """Rows, chosen rows and form, without rows that are newer than the question; and the highest primary key."""
    if not across(request):
        return rows, chosen, form, 0
    cut_off = CutOff(request.POST)
    newest = cut_off.cleaned_data["newest"] if cut_off.is_valid() else _newest(chosen)
    if form.is_bound and not cut_off.is_valid():  # not from our page: show it
        form = BulkForm()
    return rows.filter(pk__lte=newest), chosen.filter(pk__lte=newest), form, newest


def _newest(rows: QuerySet[Any]) -> int:
    return rows.order_by().aggregate(newest=Max("pk"))["newest"] or 0


def sentence(text: str, count: int, model: type[Model]) -> str:
    """`text` with the number of rows and their name."""
    options = model._meta
    noun = options.verbose_name if count == 1 else options.verbose_name_plural
    return text.format(count=f"{count:,}", noun=noun)


def switch_actions(model: type[Model], off: str) -> list[Callable[..., HttpResponse | None]]:
    """Enabling and disabling many rows; `off` says what disabled ones mean."""
    return [
        bulk_action(of(model, "enable"), question="Enable {count} {noun}?", done="{count} {noun} enabled.", permission="change"),
        bulk_action(
            of(model, "disable"), question=f"Disable {{count}} {{noun}}? {off}", done="{count} {noun} disabled.",
            permission="change", danger=True,
        ),
    ]  # fmt: skip
