"""Completions of a term in the jobs' search box: qualifiers, and values that the person sees."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, JsonResponse

from queues import job_search
from queues.models import Batch, Queue
from queues.states import Status
from quotas.admin.visibility import project_ids, visible
from quotas.models import Account, Policy, Pool, Project

MOST = 12
RECENT = 2_000
"""Newest jobs whose types, users and keys are suggested."""
AGES = ("age:>10m", "age:>1h", "age:<5m", "age:<1d")


def view(model_admin: Any, request: HttpRequest) -> JsonResponse:
    """`?q=` is the term that is typed."""
    if not model_admin.has_view_permission(request):
        raise PermissionDenied
    jobs = model_admin.get_queryset(request)
    return JsonResponse({"results": list(suggestions(request, jobs, request.GET.get("q", "")))[:MOST]})


def suggestions(request: HttpRequest, jobs: QuerySet[Any], term: str) -> list[str]:
    name, colon, typed = term.partition(":")
    if not colon:
        qualifiers = [one for one in job_search.QUALIFIERS if one.startswith(term)]
        return [_typed(one) for one in qualifiers]
    if name == "age":
        return [one for one in AGES if one.startswith(term)]
    if name.startswith("key."):
        return _starting(name, typed, _keys(jobs, name.removeprefix("key.")))
    return _starting(name, typed, _values(request, jobs, name))


def _typed(qualifier: str) -> str:
    """The part that is the same for all values: `key.` of `key.NAME:`, `age:` of `age:>10m`."""
    return qualifier.partition("NAME")[0] if "NAME" in qualifier else f"{qualifier.partition(':')[0]}:"


def _starting(name: str, typed: str, values: Iterable[Any]) -> list[str]:
    found = [str(value) for value in values if value and str(value).lower().startswith(typed.lower())]
    return [job_search.joined([f"{name}:{value}"]) for value in dict.fromkeys(found)]


def _values(request: HttpRequest, jobs: QuerySet[Any], name: str) -> Iterable[Any]:
    """Values of a qualifier. Pools and accounts are the platform's."""
    platform = project_ids(request.user) is None
    match name:
        case "status":
            return Status.values
        case "queue":
            return Queue.objects.order_by("name").values_list("name", flat=True)
        case "project":
            return visible(request.user, Project.objects.order_by("slug"), "pk").values_list("slug", flat=True)
        case "policy":
            return visible(request.user, Policy.objects.order_by("name"), "project").values_list("name", flat=True)
        case "pool" if platform:
            return Pool.objects.order_by("name").values_list("name", flat=True)
        case "account" if platform:
            return [str(row) for row in Account.objects.select_related("pool").defer("credential").order_by("pk")[:500]]
        case "batch":
            batches = visible(request.user, Batch.objects.order_by("-pk"), "project").values_list("name", "uid")[:200]
            return [name or uid for name, uid in batches]
        case "type" | "user":
            recent = jobs.order_by("-pk").values_list(name, flat=True)[:RECENT]
            return [value for value, _ in Counter(recent).most_common()]
    return []


def _keys(jobs: QuerySet[Any], name: str) -> Iterable[Any]:
    recent = jobs.order_by("-pk").values_list("keys", flat=True)[:RECENT]
    found = Counter(str(keys[name]) for keys in recent if isinstance(keys, dict) and name in keys)
    return [value for value, _ in found.most_common()]
