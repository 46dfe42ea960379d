"""The head of the jobs list: tabs by state with counts, chips of the search, and why waiting jobs wait."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from queues import job_search, reason_codes
from queues.models import Job
from queues.ready_groups import groups_waiting
from queues.selectors.job_filter import PROGRESS, STAGE_CODES, of_group, of_groups
from queues.states import GroupKey, Status
from quotas.admin.visibility import project_ids

MOST = 10_000
"""Further rows are not counted: the figure is shown as `10,000+`."""
GROUPS = 200


def groups(request: HttpRequest) -> list[GroupKey]:
    mine = project_ids(request.user)
    return [key for key in groups_waiting() if mine is None or key[2] in mine][:GROUPS]


def count_of(rows: QuerySet[Any]) -> int:
    return rows.order_by()[: MOST + 1].count()


def shown_count(count: int) -> str:
    return f"{MOST:,}+" if count > MOST else f"{count:,}"


COUNTING = "_sluice_counting"
"""Marks a copy of the request whose changelist is only counted."""


class Total(int):
    """A count of rows that shows as `10,000+` where there may be more."""

    def __str__(self) -> str:
        return shown_count(int(self))

    def __format__(self, spec: str) -> str:
        return str(self)


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
    counts = [(status, count_of(free.filter(status=status))) for status in Status]
    tabs = [{"label": "All", "address": _address(request, status__exact=""), "chosen": not chosen, "count": ""}]
    tabs += [
        {
            "label": status.label,
            "address": _address(request, status__exact=status.value),
            "chosen": chosen == status.value,
            "count": shown_count(count),
        }
        for status, count in counts
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
        "chips": chips,
        "reasons": _reasons(model_admin, request),
        "qualifiers": job_search.QUALIFIERS,
        "bounded": bounded,
    }


def _reasons(model_admin: Any, request: HttpRequest) -> list[dict[str, Any]]:
    rows = model_admin.get_changelist_instance(_without(request, "why")).queryset
    counts: Counter[str] = Counter()
    names: dict[str, set[str]] = {}
    for key, (code, name) in reason_codes.by_group(groups(request)).items():
        if count := count_of(rows.filter(of_group(key))):
            counts[code] += count
            names.setdefault(code, set()).update({name} - {""})
    for code, condition in STAGE_CODES.items():
        if count := count_of(rows.filter(condition)):
            counts[code] += count
    return [
        {
            "reason": reason_codes.REASONS[code],
            "names": ", ".join(sorted(names.get(code, ()))[:3]),
            "count": shown_count(count),
            "chosen": request.GET.get("why") == code,
            "address": _address(request, why="" if request.GET.get("why") == code else code),
        }
        for code, count in counts.most_common()
    ]


def explained(rows: list[Job]) -> None:
    """Give each waiting row its `why`: a code and a name."""
    found = reason_codes.of_jobs(rows)
    for row in rows:
        row.why = found.get(row.pk)  # type: ignore[attr-defined]
