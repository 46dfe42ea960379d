"""One policy's subjects, on its own page."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

from django.db.models import Sum
from django.http import Http404
from django.utils import timezone

from controlplane.admin.panels.limits import ratio, row_of
from quotas.admin.spans import spell_span
from quotas.engine.types import LimitState
from quotas.models import Policy, Project
from quotas.models.usage import UsageRollup
from quotas.services import adaptive
from quotas.services.usage import Selection, usage

ROWS = 10
READ = 2000


def figures(projects: list[int] | None, pk: int | None) -> dict[str, Any]:
    policy = Policy.objects.filter(pk=pk or 0).first()
    if policy is None:
        raise Http404
    if projects is None:
        states = usage(Selection(policy=policy.name), most=READ)
    else:
        slugs = Project.objects.filter(pk__in=projects).values_list("slug", flat=True)
        states = [state for slug in slugs for state in usage(Selection(policy=policy.name, visible_to=slug), most=READ)]
    states.sort(key=ratio, reverse=True)
    rows = [row_of(state) for state in states if state.limit is not None]
    denied = _denied(policy)
    for row in rows:
        row["denied"] = denied.get((row["state"].partition, row["state"].key), 0)
        row["resets_in"] = spell_span(timedelta(seconds=row["state"].reset_after)) if row["state"].reset_after else "–"
        row["reset_query"] = _reset_query(row["state"])
    moved = adaptive.standings().get(policy.name)
    return {"rows": rows[:ROWS], "more": max(0, len(rows) - ROWS), "policies": 1, "moved": moved, "policy": policy}


def _denied(policy: Policy) -> dict[tuple[str, str], int]:
    """Denials of the last hour, by project and subject."""
    since = timezone.now() - timedelta(hours=1)
    rows = UsageRollup.objects.filter(policy=policy, resolution="minute", start__gte=since, denied__gt=0).order_by()
    return {
        (project, key): count
        for project, key, count in rows.values_list("project", "key").annotate(count=Sum("denied"))[:READ]
    }


def _reset_query(state: LimitState) -> str:
    """The initial values of the reset dialog: this row's subject and its use."""
    given = {"key": state.key, "project": state.partition, "used": f"{state.used} of {state.limit} {state.unit}"}
    return urlencode({name: value for name, value in given.items() if value})
