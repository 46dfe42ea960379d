"""The page of an object that the audit log names (`queue:batch`, `account:llm/a1`)."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import Group, User
from django.urls import reverse

from controlplane.models import AlertRule
from queues.models import Batch, DeadLetter, Job, Queue, Recurring, RetryPolicy
from quotas.models import Account, Network, Policy, Pool, Project, Provider, Tier

NAMED: dict[str, tuple[Any, str]] = {
    "job": (Job, "uid"),
    "batch": (Batch, "uid"),
    "deadletter": (DeadLetter, "uid"),
    "queue": (Queue, "name"),
    "recurring": (Recurring, "name"),
    "retrypolicy": (RetryPolicy, "name"),
    "policy": (Policy, "name"),
    "pool": (Pool, "name"),
    "provider": (Provider, "name"),
    "network": (Network, "name"),
    "tier": (Tier, "name"),
    "project": (Project, "slug"),
    "alert_rule": (AlertRule, "name"),
    "alertrule": (AlertRule, "name"),
    "user": (User, "username"),
    "group": (Group, "name"),
}


def address_of(target: str) -> str | None:
    """The page of an audit entry's target; None if it is gone or is not a single object."""
    noun, _, name = target.partition(":")
    if noun == "account":
        pool, _, account = name.partition("/")
        rows: Any = Account.objects.filter(pool__name=pool, name=account)
    elif noun in NAMED:
        model, field = NAMED[noun]
        rows = model.objects.filter(**{field: name})
    else:
        return None
    pk = rows.values_list("pk", flat=True).first()
    options = rows.model._meta
    return reverse(f"admin:{options.app_label}_{options.model_name}_change", args=[pk]) if pk else None
