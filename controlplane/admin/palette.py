"""The command palette's results besides pages: actions on named objects (`pause imports`, `reset cust-3`), and IDs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from unfold.dataclasses import SearchResult

from controlplane.admin.panels.limits import row_of
from queues.models import Batch, DeadLetter, Job, Queue, WorkerProcess
from quotas.admin.visibility import project_ids
from quotas.engine.errors import LimiterUnavailable
from quotas.models import Account, Policy, Pool
from quotas.services.usage import Selection, usage

EACH = 5
"""Results of a kind that are shown at most."""
SUBJECTS = 10
SHORTEST_ID = 3

VERBS: dict[str, tuple[tuple[type[Any], str], ...]] = {
    "pause": ((Queue, "pause"), (Pool, "pause_pool")),
    "resume": ((Queue, "resume"), (Pool, "resume_pool")),
    "drain": ((Queue, "drain"),),
    "enable": ((Account, "enable"),),
    "disable": ((Account, "disable"),),
    "test": ((Account, "test"),),
    "trip": ((Account, "trip"),),
    "close": ((Account, "close_breaker"),),
    "clear": ((Account, "clear_cooldown"),),
    "reset": ((Policy, "reset"),),
    "cancel": ((Job, "cancel"),),
    "retry": ((Job, "retry"),),
    "replay": ((DeadLetter, "replay"),),
    "discard": ((DeadLetter, "discard"),),
}
"""Verbs that a person may type, and the buttons that they press."""
ICONS = {
    "queue": "stacks", "pool": "hub", "account": "key_vertical", "policy": "speed", "job": "task_alt",
    "deadletter": "report", "batch": "inventory_2", "workerprocess": "memory",
}  # fmt: skip


def found(request: HttpRequest, term: str) -> list[SearchResult]:
    """The theme's `search_callback`. Results that a person may not see or use are left out."""
    words = request.GET.get("s", term).split(maxsplit=1)
    verb = words[0].lower() if words else ""
    if verb in VERBS:
        return list(_verbs(request, verb, words[1].strip() if len(words) > 1 else ""))
    return list(_things(request, " ".join(words)))


def _verbs(request: HttpRequest, verb: str, name: str) -> Iterator[SearchResult]:
    for model, action in VERBS[verb]:
        for row in _named(request, model, name)[:EACH]:
            page: Any = admin.site._registry[model]
            if any(one.action_name.endswith(f"_{action}") for one in page.get_actions_detail(request, row.pk)):
                yield _result(row, f"{verb.capitalize()} {row}", do=action)
    if verb == "reset" and name:
        yield from _subjects(request, name)


def _subjects(request: HttpRequest, name: str) -> Iterator[SearchResult]:
    """The counters of a subject, each with its present use."""
    page: Any = admin.site._registry[Policy]
    if not page.has_operate_permission(request):
        return
    try:
        states = [state for state in usage(Selection(key=name), most=SUBJECTS) if state.used]
    except LimiterUnavailable:
        return
    ids = dict(Policy.objects.filter(name__in=[state.policy for state in states]).values_list("name", "pk"))
    for state in states:
        row = row_of(state)
        used = (
            f"{state.used:,} of {row['capacity']:,} {state.unit}" if row["capacity"] is not None else f"{state.used:,}"
        )
        query = {"do": "reset", "key": state.key, "project": state.partition, "used": used}
        address = reverse("admin:quotas_policy_change", args=[ids[state.policy]])
        yield SearchResult(
            title=f"Reset {state.key} of {state.policy}", description=f"used {used}", icon="restart_alt",
            link=f"{address}?{urlencode({key: value for key, value in query.items() if value})}",
        )  # fmt: skip


def _things(request: HttpRequest, name: str) -> Iterator[SearchResult]:
    if len(name) < SHORTEST_ID:
        return
    for model in (Job, DeadLetter, Batch, Pool, WorkerProcess):
        if admin.site._registry[model].has_view_permission(request):
            for row in _named(request, model, name)[:EACH]:
                yield _result(row, str(row))
    if admin.site._registry[Job].has_view_permission(request):
        jobs = Job.objects.filter(user=name)
        mine = project_ids(request.user)
        if mine is not None:
            jobs = jobs.filter(project__in=mine)
        # Among the newest only: users have no index.
        newest = Job.objects.order_by("-pk").values_list("pk", flat=True).first() or 0
        if jobs.filter(pk__gt=newest - 20_000).exists():
            address = reverse("admin:queues_job_changelist")
            query = urlencode({"q": f"user:{name}"})
            yield SearchResult(
                title=f"Jobs of user {name}", description="jobs", link=f"{address}?{query}", icon="person"
            )


def _named(request: HttpRequest, model: type[Any], name: str) -> QuerySet[Any]:
    """Rows that the person sees and whose name or ID begins with the text."""
    rows: QuerySet[Any] = admin.site._registry[model].get_queryset(request)
    if model in (Job, DeadLetter, Batch):
        condition = Q(uid__gte=name.lower(), uid__lt=name.lower() + "\uffff")
        if model is Batch:
            condition |= Q(name__istartswith=name)
        return rows.filter(condition) if len(name) >= SHORTEST_ID else rows.none()
    condition = Q(name__istartswith=name)
    if model is Account and "/" in name:
        pool, _, account = name.partition("/")
        condition = Q(pool__name__iexact=pool, name__istartswith=account)
    return rows.filter(condition).order_by("name")


def _result(row: Any, title: str, **query: str) -> SearchResult:
    options = row._meta
    address = reverse(f"admin:{options.app_label}_{options.model_name}_change", args=[row.pk])
    return SearchResult(
        title=title, description=str(options.verbose_name), icon=ICONS[options.model_name],
        link=f"{address}?{urlencode(query)}" if query else address,
    )  # fmt: skip
