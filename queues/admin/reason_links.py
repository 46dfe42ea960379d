"""Where what a job waits for can be changed: the page of the policy, account, pool or queue, for who may see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.contrib import admin
from django.db.models import Q
from django.http import HttpRequest
from django.urls import reverse

from queues.models import Job, Queue, WorkerProcess
from quotas.models import Account, Policy, Pool

OF_QUEUE = {"queue_paused", "queue_concurrency", "retry_backoff", "turn"}
OF_WORKERS = {"no_worker", "worker_slot"}
OF_LIMITS = {
    "policy_limit", "priority_hold", "account_cooldown", "account_breaker", "account_limit", "account_concurrency",
    "accounts_disabled", "no_account", "pool_paused",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Link:
    text: str
    address: str


def find(request: HttpRequest, job: Job, code: str, name: str) -> Link | None:
    """None where there is no such page, or the person may not see it."""
    if code in OF_WORKERS:
        return _list(request, WorkerProcess, "Workers")
    if code in OF_QUEUE:
        return _page(request, Queue, Q(name=name) if name else Q(pk=job.queue_id), "Queue")
    if code == "dependency":
        return None
    if code not in OF_LIMITS:
        return None
    if name:
        found = _page(request, Policy, Q(name=name), "Policy") if code in ("policy_limit", "priority_hold") else None
        pool, slash, account = name.partition("/")
        if found is None and slash:
            found = _page(request, Account, Q(pool__name=pool, name=account), "Account")
        found = found or _page(request, Pool, Q(name=pool), "Pool")
        if found is not None:
            return found
    if code == "policy_limit":
        return _list(request, Policy, "Policies")
    of_job = Q(name=job.pool) if job.pool else Q(pk=job.queue.pool_id or 0)
    return _page(request, Pool, of_job, "Pool")


def _page(request: HttpRequest, model: Any, condition: Q, title: str) -> Link | None:
    shown = admin.site._registry[model]
    if not shown.has_view_permission(request):
        return None
    row = shown.get_queryset(request).filter(condition).first()
    if row is None:
        return None
    options = model._meta
    address = reverse(f"admin:{options.app_label}_{options.model_name}_change", args=[row.pk])
    return Link(f"{title} {row}", address)


def _list(request: HttpRequest, model: Any, title: str) -> Link | None:
    if not admin.site._registry[model].has_view_permission(request):
        return None
    options = model._meta
    return Link(title, reverse(f"admin:{options.app_label}_{options.model_name}_changelist"))
