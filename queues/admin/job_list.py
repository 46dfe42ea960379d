"""The head of the jobs list: tabs by state with counts, chips of the search, and why waiting jobs wait."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest

from queues import job_search, reason_codes
from queues.models import Job
from queues.ready_groups import groups_waiting
from queues.states import GroupKey, Stage, Status
from quotas.admin.visibility import project_ids

MOST = 10_000
"""Further rows are not counted: the figure is shown as `10,000+`."""
GROUPS = 200
STAGE_CODES = {
    "dependency": Q(stage=Stage.HELD),
    "retry_backoff": Q(stage=Stage.SCHEDULED, status=Status.RETRYING),
    "scheduled": Q(stage=Stage.SCHEDULED) & ~Q(status=Status.RETRYING),
    "worker_slot": Q(stage=Stage.BELT),
}


def of_group(key: GroupKey) -> Q:
    return Q(stage=Stage.READY, queue_id=key[0], priority=key[1], project_id=key[2], pool=key[3])


def _groups(request: HttpRequest) -> list[GroupKey]:
    mine = project_ids(request.user)
    return [key for key in groups_waiting() if mine is None or key[2] in mine][:GROUPS]


def _count(rows: QuerySet[Any]) -> int:
    return rows.order_by()[: MOST + 1].count()


def _shown(count: int) -> str:
    return f"{MOST:,}+" if count > MOST else f"{count:,}"


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
        found = reason_codes.by_group(_groups(request))
        chosen = [of_group(key) for key, (held_by, _) in found.items() if held_by == code]
        if not chosen:
            return queryset.none()
        condition = chosen[0]
        for other in chosen[1:]:
            condition |= other
        return queryset.filter(condition)


def _without(request: HttpRequest, *names: str) -> HttpRequest:
    other = copy.copy(request)
    given = request.GET.copy()
    for name in (*names, "p"):
        given.pop(name, None)
    other.GET = given  # type: ignore[assignment]
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
    counts = [(status, _count(free.filter(status=status))) for status in Status]
    tabs = [{"label": "All", "address": _address(request, status__exact=""), "chosen": not chosen, "count": ""}]
    tabs += [
        {
            "label": status.label,
            "address": _address(request, status__exact=status.value),
            "chosen": chosen == status.value,
            "count": _shown(count),
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
    return {
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
    for key, (code, name) in reason_codes.by_group(_groups(request)).items():
        if count := _count(rows.filter(of_group(key))):
            counts[code] += count
            names.setdefault(code, set()).update({name} - {""})
    for code, condition in STAGE_CODES.items():
        if count := _count(rows.filter(condition)):
            counts[code] += count
    return [
        {
            "reason": reason_codes.REASONS[code],
            "names": ", ".join(sorted(names.get(code, ()))[:3]),
            "count": _shown(count),
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
