"""The head of the jobs list: tabs by state with counts, chips of the search, and why waiting jobs wait."""

from __future__ import annotations

import copy
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from queues import job_search, reason_codes
from queues.models import Job
from queues.ready_groups import groups_waiting
from queues.selectors import job_counts
from queues.selectors.job_counts import Count
from queues.selectors.job_filter import PROGRESS, STAGE_CODES, of_groups
from queues.states import FINAL, GroupKey, Status
from quotas.admin.visibility import shown_projects

GROUPS = 200


def groups(request: HttpRequest) -> list[GroupKey]:
    shown = shown_projects(request)
    return [key for key in groups_waiting() if shown is None or key[2] in shown][:GROUPS]


TOTAL = "_sluice_total"
"""How many rows the list has, which `head` has counted for the list."""
COUNTING = "_sluice_counting"
"""Marks a copy of the request whose changelist is only counted."""


NEWER = "newer_than"
"""The parameter with which a list requests how many new jobs match its filters."""
MOST_NEW = 1_000


def newer(model_admin: Any, request: HttpRequest) -> HttpResponse:
    """The list's button for new jobs: how many jobs match its filters and are newer than those it shows."""
    given = request.GET.get(NEWER, "")
    above = int(given) if given.isdecimal() else 0
    rows = model_admin.get_changelist_instance(_without(request, NEWER)).queryset.filter(pk__gt=above)
    count = rows.order_by()[: MOST_NEW + 1].count()
    context = {
        "address": _address(request, **{NEWER: ""}),
        "newer": f"{MOST_NEW:,}+" if count > MOST_NEW else f"{count:,}" if count else "",
    }
    return TemplateResponse(request, "admin/sluice/new_jobs.html", context)


class ProgressFilter(admin.SimpleListFilter):
    """The stages that the dashboard's figures count."""

    title = "progress"
    parameter_name = "progress"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, name) for name in PROGRESS]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        stages = PROGRESS.get(self.value() or "")
        return queryset.filter(stage__in=stages) if stages else queryset


class WhyFilter(admin.SimpleListFilter):
    title = "why it waits"
    parameter_name = "why"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(code, reason.label) for code, reason in reason_codes.REASONS.items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        code = self.value()
        if not code:
            return queryset
        if code in STAGE_CODES:
            return queryset.filter(STAGE_CODES[code])
        found = reason_codes.by_group(groups(request))
        return queryset.filter(of_groups([key for key, (held_by, _) in found.items() if held_by == code]))


def _without(request: HttpRequest, *names: str) -> HttpRequest:
    other = copy.copy(request)
    given = request.GET.copy()
    for name in (*names, "p"):
        given.pop(name, None)
    other.GET = given  # type: ignore[assignment]
    setattr(other, COUNTING, True)
    return other


def _address(request: HttpRequest, **given: str) -> str:
    query = request.GET.copy()
    query.pop("p", None)
    for name, value in given.items():
        query.pop(name, None)
        if value:
            query[name] = value
    return f"?{query.urlencode()}"


def head(model_admin: Any, request: HttpRequest) -> dict[str, Any]:
    """The context of `admin/sluice/job_list.html`."""
    free = model_admin.get_changelist_instance(_without(request, "status__exact")).queryset
    chosen = request.GET.get("status__exact", "")
    counts = job_counts.by_status(free)
    total = job_counts.total(counts, chosen)
    setattr(request, TOTAL, total)
    tabs = [{"label": "All", "address": _address(request, status__exact=""), "chosen": not chosen, "count": ""}]
    tabs += [
        {
            "label": status.label,
            "address": _address(request, status__exact=status.value),
            "chosen": chosen == status.value,
            "count": str(counts[status]),
            "least": counts[status].more,
        }
        for status in Status
    ]
    search = job_search.parse(request.GET.get("q", ""))
    words = [word for word, _ in search.terms]
    chips = [
        {"text": word, "wrong": wrong, "address": _address(request, q=job_search.joined(words[:at] + words[at + 1 :]))}
        for at, (word, wrong) in enumerate(search.terms)
    ]
    bounded = job_search.NEWEST if search.scans and job_search.scan_floor() > 0 else None
    top = Job.objects.order_by("-pk").values_list("pk", flat=True).first() or 0
    return {
        "newer": _address(request, **{NEWER: str(top)}) if "p" not in request.GET else "",
        "tabs": tabs,
        "newest": f"{job_counts.MOST:,}",
        "chips": chips,
        "reasons": _reasons(model_admin, request),
        "qualifiers": job_search.QUALIFIERS,
        "bounded": bounded,
    }


def _reasons(model_admin: Any, request: HttpRequest) -> list[dict[str, Any]]:
    if request.GET.get("status__exact") in FINAL:
        return []
    rows = model_admin.get_changelist_instance(_without(request, "why")).queryset
    counts: dict[str, Count] = {}
    names: dict[str, set[str]] = {}
    by_group = job_counts.by_group(rows, groups(request))
    for key, (code, name) in reason_codes.by_group(by_group).items():
        counts[code] = counts.get(code, Count(0)).plus(by_group[key])
        names.setdefault(code, set()).update({name} - {""})
    for code, count in job_counts.by_stage_code(rows).items():
        counts[code] = counts.get(code, Count(0)).plus(count)
    return [
        {
            "reason": reason_codes.REASONS[code],
            "names": ", ".join(sorted(names.get(code, ()))[:3]),
            "count": str(count),
            "chosen": request.GET.get("why") == code,
            "address": _address(request, why="" if request.GET.get("why") == code else code),
        }
        for code, count in sorted(counts.items(), key=lambda item: -item[1])
    ]


def explained(rows: list[Job]) -> None:
    """Give each waiting row its `why`: a code and a name."""
    found = reason_codes.of_jobs(rows)
    for row in rows:
        row.why = found.get(row.pk)  # type: ignore[attr-defined]
