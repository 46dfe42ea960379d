"""Dead letters by fingerprint: when each failure was first and last seen, how often, and one button for its jobs."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db.models import Max, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse

from queues import redaction
from queues.admin import dead_letter_actions, ignored_failures
from queues.models import DeadLetter
from queues.selectors.dead_letters import DeadLetterGroup, FailureHistory, dead_letter_groups, failure_histories
from queues.selectors.ignored_failures import without_ignored
from queues.services import bulk_actions
from quotas import clock
from quotas.admin import sparkline
from quotas.admin.audit import actor_of
from quotas.admin.bulk import BulkForm, CutOff, Refused, new_token, token_of
from quotas.models import Project

SHOWN = 100


class GroupCutOff(CutOff):
    """What the question was about: letters up to the newest one, of these projects (their primary keys)."""

    projects = forms.RegexField(r"[0-9]+(,[0-9]+)*")

    def clean_projects(self) -> list[int]:
        return [int(pk) for pk in self.cleaned_data["projects"].split(",")]


def groups(model_admin: Any, request: HttpRequest) -> HttpResponse:
    """Failures to be handled; with `?ignored=1` those that are ignored now, whether or not any of their jobs is open."""
    if not model_admin.has_view_permission(request):
        raise PermissionDenied
    now, ignored = clock.now(), ignored_failures.ignored_for(request)
    is_ignored = "ignored" in request.GET
    letters = model_admin.get_queryset(request)
    rows = (
        ignored_failures.letters_of(letters, ignored)
        if is_ignored
        else without_ignored(letters.filter(handled_at=None), now)
    )
    found = dead_letter_groups(rows, count=SHOWN + 1)
    shown = sorted(found[:SHOWN], key=lambda group: -group.count)
    histories = failure_histories(letters, [group.fingerprint for group in shown], now)
    context = {
        **model_admin.admin_site.each_context(request),
        "title": "Failures",
        "opts": DeadLetter._meta,
        "groups": [
            {
                "group": replace(group, error=redaction.hide_in_text(group.error)),
                "spark": sparkline.points(histories[group.fingerprint].per_hour),
                "recent": sum(histories[group.fingerprint].per_hour),
                "back": _back(group, histories[group.fingerprint]),
                "ignored": [one for one in ignored if is_ignored and one.fingerprint == group.fingerprint],
            }
            for group in shown
        ],
        "more": len(found) > SHOWN,
        "is_ignored": is_ignored,
        "ignored_count": len({one.fingerprint for one in ignored}),
        "may_replay": model_admin.has_operate_permission(request),
    }
    return TemplateResponse(request, "admin/sluice/letter_groups.html", context)


def _back(group: DeadLetterGroup, history: FailureHistory) -> datetime | None:
    """When the failure was resolved last, if it has occurred again since."""
    return history.resolved_at if history.resolved_at is not None and group.last_at > history.resolved_at else None


def _replay_one(model_admin: Any, request: HttpRequest, rows: Any, reason: str) -> HttpResponse:
    """The newest one, to see whether the cause is gone before the others follow."""
    letter = rows.order_by("-pk").first()
    if letter is None:
        raise Http404
    try:
        dead_letter_actions.replay(request, letter, reason)
        messages.success(request, f"Requeued 1 job, {letter.job.uid}. If it completes, replay the others.")
    except Refused as error:
        messages.warning(request, str(error))
    return HttpResponseRedirect(reverse("admin:queues_job_change", args=[letter.job_id]))


def replay_group(model_admin: Any, request: HttpRequest, fingerprint: str) -> HttpResponse:
    """First a confirmation with the count; then replays in the background the letters that existed at that time. Those of
    projects in which the failure is ignored are a group of their own, `?ignored=1`, as in the list; so is one that is ignored in all."""
    if not model_admin.has_operate_permission(request):
        raise PermissionDenied
    letters = model_admin.get_queryset(request).filter(handled_at=None, fingerprint=fingerprint)
    rows: Any = without_ignored(letters, clock.now())
    if "ignored" in request.GET or not rows.exists():
        rows = ignored_failures.letters_of(letters, ignored_failures.ignored_for(request))
    form = BulkForm(request.POST or None)
    cut_off = GroupCutOff(request.POST or None)
    if form.is_valid() and cut_off.is_valid():
        rows = rows.filter(pk__lte=cut_off.cleaned_data["newest"], project__in=cut_off.cleaned_data["projects"])
        if "one" in request.POST:
            return _replay_one(model_admin, request, rows, form.cleaned_data["reason"])
        slugs = Project.objects.filter(pk__in=_projects(rows)).order_by("slug").values_list("slug", flat=True)
        newest = cut_off.cleaned_data["newest"]
        chosen = {"fingerprint": fingerprint, "newest": newest, "projects": list(slugs)}
        begun = bulk_actions.begin(
            "replay", chosen, project=None, actor=actor_of(request), reason=form.cleaned_data["reason"],
            uid=token_of(request), undo_for=bulk_actions.UNDO_FOR,
        )  # fmt: skip
        messages.success(request, f"Replaying {begun.total:,} dead letters in {bulk_actions.UNDO_FOR.seconds} s.")
        return HttpResponseRedirect(reverse("admin:queues_bulkaction_change", args=[begun.pk]))
    count = rows.count()
    if not count:
        raise Http404
    context = {
        **model_admin.admin_site.each_context(request),
        "title": "Replay this failure",
        "opts": DeadLetter._meta,
        "question": f"Replay {count:,} dead letter{'s' * (count != 1)} of this failure?",
        "example": rows.order_by("-pk").first(),
        "newest": request.POST.get("newest") or rows.order_by().aggregate(newest=Max("pk"))["newest"],
        "projects": request.POST.get("projects") or ",".join(map(str, _projects(rows))),
        "token": request.POST.get("token") or new_token(),
        "form": form,
    }
    return TemplateResponse(request, "admin/sluice/replay_group.html", context)


def _projects(letters: QuerySet[DeadLetter]) -> list[int]:
    """Primary keys of their projects."""
    return sorted(letters.order_by().values_list("project", flat=True).distinct())
