"""Actions on chosen rows of a list: first a page that says on how many, then the act, row by row.

The act is done on what that page showed: the chosen rows, or all that match the list's filters and were there when the
page was opened. A request acts on at most `PART` rows, for `LONGEST` seconds; then the page asks about the next ones. Lists of
jobs and dead letters, which may have a million rows, begin a background action instead (`together`).
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.admin import helpers
from django.db.models import Max, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone

from quotas.admin.reason import ReasonField

SHOWN = 20
PART = 200
"""Rows that one request acts on. Each costs a few statements in SQL, and for an account one in Redis."""
LONGEST = 5.0
"""Seconds after which a request acts on no further row."""


class BulkForm(forms.Form):
    reason = ReasonField()


class CutOff(forms.Form):
    """The highest primary key when the page was shown."""

    newest = forms.IntegerField(min_value=0)


class Place(forms.Form):
    """The primary key up to which all rows are done."""

    after = forms.IntegerField(min_value=0, required=False)


class Token(forms.Form):
    """Stands for one question, so that an answer that is sent twice acts once."""

    token = forms.RegexField(r"[0-9a-f]{26}", strip=False)


def new_token() -> str:
    return secrets.token_hex(13)


def token_of(request: HttpRequest) -> str:
    """The question's token; empty where it has none."""
    form = Token(request.POST)
    return str(form.cleaned_data["token"]) if form.is_valid() else ""


class Refused(Exception):
    """A row was not in a state for the action; its text is shown."""


Act = Callable[[HttpRequest, Any, str], object]
"""Takes a row and the reason."""
Together = Callable[[HttpRequest, QuerySet[Any], str], None]
"""Takes the rows and the reason."""


def across(request: HttpRequest) -> bool:
    """Whether an action is on all that match and not on chosen rows."""
    return request.method == "POST" and request.POST.get("select_across") == "1"


def listing(request: HttpRequest) -> bool:
    """Whether a list's default filter applies: in the list, and for all that match it. A
    chosen row stays an action's, whatever became of it since."""
    return request.method == "GET" or across(request)


def bulk_action(
    title: str,
    *,
    question: str,
    done: str = "",
    act: Act | None = None,
    together: Together | None = None,
    permission: str = "operate",
    danger: bool = False,
    name: str = "",
    only: Mapping[str, Any] | Q | None = None,
    left_out: str = "",
    described: Callable[[Any], str] = str,
) -> Callable[..., HttpResponse | None]:
    """An action for `ModelAdmin.actions`. `act` does it to one row and raises `Refused` where it can't; `together` does
    it to all and reports it. `only` are lookups of the rows that the action can be done to; `left_out` says why the
    others are not included. `question` and `done` are sentences with `{count}` and `{noun}`."""

    def action(model_admin: Any, request: HttpRequest, rows: QuerySet[Any]) -> HttpResponse | None:
        chosen = rows
        rows = rows.filter(only) if isinstance(only, Q) else rows.filter(**only or {})
        form = BulkForm(request.POST if "confirmed" in request.POST else None)
        rows, chosen, form, newest = _cut(request, rows, chosen, form)
        after = 0
        if form.is_bound and form.is_valid():
            reason = form.cleaned_data["reason"]
            if together is not None:
                together(request, rows, reason)
                return None
            if act is not None:
                after = _each(request, rows, reason, act, done)
            if not rows.filter(pk__gt=after).exists():
                return None
            form = BulkForm(initial={"reason": reason})
        rows = rows.filter(pk__gt=after) if after else rows
        rows = rows if together is not None else rows.order_by("pk")
        count = rows.count()
        asked = count if together is not None else min(count, PART)
        others = chosen.count() - count if left_out and not after else 0
        context = _page(model_admin, request) | {
            "title": title,
            "submit": title,
            "danger": danger,
            "question": _sentence(question, asked, rows),
            "left_out": left_out.format(count=f"{others:,}") if others > 0 else "",
            **_listed(rows, asked, described),
            "total": count,
            "is_part": asked < count,
            "after": after,
            "form": form,
            "action": action.__name__,
            "newest": newest,
        }
        return TemplateResponse(request, "admin/sluice/confirm.html", context)

    action.__name__ = name or title.lower().replace(" ", "_")
    action.short_description = title  # type: ignore[attr-defined]
    action.allowed_permissions = [permission]  # type: ignore[attr-defined]
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


def _listed(rows: QuerySet[Any], count: int, described: Callable[[Any], str]) -> dict[str, Any]:
    """The first of the rows, and how many there are."""
    return {"rows": [described(row) for row in rows[:SHOWN]], "count": count, "more": max(0, count - SHOWN)}


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


def _sentence(sentence: str, count: int, rows: QuerySet[Any]) -> str:
    options = rows.model._meta
    noun = options.verbose_name if count == 1 else options.verbose_name_plural
    return sentence.format(count=f"{count:,}", noun=noun)


@dataclass(slots=True)
class Done:
    """What a request did. `last`: the primary key of its last row."""

    count: int = 0
    refused: list[str] = field(default_factory=list)
    last: int = 0


def _each(request: HttpRequest, rows: QuerySet[Any], reason: str, act: Act, done: str) -> int:
    """Act on the first rows that are not done yet; returns the last one's primary key."""
    place = Place(request.POST)
    after = (place.cleaned_data["after"] or 0) if place.is_valid() else 0
    end, part = time.monotonic() + LONGEST, Done(last=after)
    for row in rows.filter(pk__gt=after).order_by("pk")[:PART]:
        key = row.pk  # a deleted row has none
        try:
            act(request, row, reason)
            part.count += 1
        except Refused as why:
            part.refused.append(f"{row}: {why}")
        part.last = key
        if time.monotonic() > end:
            break
    if part.count:
        messages.success(request, _sentence(done, part.count, rows))
    if part.refused:
        more = f" And {len(part.refused) - 5:,} more." if len(part.refused) > 5 else ""
        messages.warning(request, f"Skipped: {'; '.join(part.refused[:5])}.{more}")
    return part.last
