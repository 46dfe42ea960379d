"""One policy's subjects, on its own page."""

from __future__ import annotations

from typing import Any

from django.http import Http404

from controlplane.admin.panels.limits import ratio, row_of
from quotas.models import Policy, Project
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
    moved = adaptive.standings().get(policy.name)
    return {"rows": rows[:ROWS], "more": max(0, len(rows) - ROWS), "policies": 1, "moved": moved}
