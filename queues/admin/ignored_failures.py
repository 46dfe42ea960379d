"""Pages that ignore a failure until a time, and that stop ignoring it."""

from __future__ import annotations

from datetime import timedelta
from functools import reduce
from operator import or_
from typing import Any

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db.models import Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from unfold.widgets import UnfoldAdminSelectWidget

from queues import redaction
from queues.models import DeadLetter, IgnoredFailure
from queues.services import ignored_failures
from quotas import clock
from quotas.admin.audit import actor_of
from quotas.admin.bulk import BulkForm
from quotas.admin.visibility import shown_projects
from quotas.moments import spell_moment

SPANS = {
    "hour": ("1 hour", timedelta(hours=1)),
    "day": ("1 day", timedelta(days=1)),
    "week": ("1 week", timedelta(days=7)),
}


class IgnoreForm(BulkForm):
    span = forms.ChoiceField(
        label="For",
        choices=[(name, text) for name, (text, _) in SPANS.items()],
        initial="day",
        widget=UnfoldAdminSelectWidget,
    )
    field_order = ["span", "reason"]


def ignored_for(request: HttpRequest) -> list[IgnoredFailure]:
    """The failures that are ignored now, in the projects that the pages show; the first to end is first."""
    rows = IgnoredFailure.objects.filter(until__gt=clock.now()).select_related("project")
    shown = shown_projects(request)
    return list(rows if shown is None else rows.filter(project__in=shown))


def letters_of(letters: QuerySet[DeadLetter], ignored: list[IgnoredFailure]) -> QuerySet[DeadLetter]:
    """Those of the ignored failures: of each, the letters of its own project."""
    by_project: dict[int, set[str]] = {}
    for one in ignored:
        by_project.setdefault(one.project_id, set()).add(one.fingerprint)
    chosen = [Q(project=project, fingerprint__in=prints) for project, prints in by_project.items()]
    return letters.filter(reduce(or_, chosen)) if chosen else letters.none()


def ignore_group(model_admin: Any, request: HttpRequest, fingerprint: str) -> HttpResponse:
    """Asks for how long and why. The failure of other projects is not ignored, nor one that occurs there later."""
    if not model_admin.has_operate_permission(request):
        raise PermissionDenied
    letters = model_admin.get_queryset(request).filter(handled_at=None, fingerprint=fingerprint)
    form = IgnoreForm(request.POST or None)
    if form.is_valid():
        text, span = SPANS[form.cleaned_data["span"]]
        until = ignored_failures.ignore(
            letters, fingerprint, span, actor=actor_of(request), reason=form.cleaned_data["reason"]
        )
        if until is None:
            messages.warning(request, "This failure is ignored already, or none of its dead letters is open.")
        else:
            messages.success(request, f"Ignored for {text}, until {spell_moment(until)}.")
        return HttpResponseRedirect(reverse("admin:queues_deadletter_groups"))
    return _ask(
        model_admin, request, letters, form, title="Ignore this failure", submit="Ignore",
        question="Ignore this failure for a time?",
        detail="Until then it raises no alert and no notice, and is left out of the failures. Its jobs stay dead letters that"
        " can be replayed or discarded.",
    )  # fmt: skip


def stop_ignoring_group(model_admin: Any, request: HttpRequest, fingerprint: str) -> HttpResponse:
    if not model_admin.has_operate_permission(request):
        raise PermissionDenied
    letters = model_admin.get_queryset(request).filter(fingerprint=fingerprint)
    ignored = [one for one in ignored_for(request) if one.fingerprint == fingerprint]
    form = BulkForm(request.POST or None)
    if form.is_valid():
        if ignored_failures.stop_ignoring(ignored, actor=actor_of(request), reason=form.cleaned_data["reason"]):
            messages.success(request, "The failure is no longer ignored.")
        else:
            messages.warning(request, "This failure is not ignored.")
        return HttpResponseRedirect(reverse("admin:queues_deadletter_groups"))
    if not ignored:
        raise Http404
    return _ask(
        model_admin, request, letters, form, title="Stop ignoring this failure", submit="Stop ignoring",
        question="Stop ignoring this failure?", detail="It is among the failures again, and may raise alerts.",
    )  # fmt: skip


def _ask(model_admin: Any, request: HttpRequest, letters: Any, form: forms.Form, **texts: str) -> HttpResponse:
    example = letters.order_by("-pk").first()
    if example is None:
        raise Http404
    context = {
        **model_admin.admin_site.each_context(request),
        **texts,
        "opts": DeadLetter._meta,
        "example": f"{example.category.replace('_', ' ')}: {redaction.hide_in_text(example.error[:1000])}",
        "form": form,
    }
    return TemplateResponse(request, "admin/sluice/ignore_group.html", context)
