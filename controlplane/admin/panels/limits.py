"""The quotas with the highest use, from the counters that enforce."""

from __future__ import annotations

from typing import Any

from quotas.engine.types import LimitState
from quotas.models import Policy, Project
from quotas.services import usage as usage_service
from quotas.services.usage import Selection, usage

ROWS = 12
READ = 2000


def figures(projects: list[int] | None, pk: int | None) -> dict[str, Any]:
    if projects is None:
        states = usage(Selection(), most=READ)
    else:
        slugs = Project.objects.filter(pk__in=projects).values_list("slug", flat=True)
        states = [state for slug in slugs for state in usage(Selection(visible_to=slug), most=READ)]
    used = [state for state in states if state.limit]
    used.sort(key=ratio, reverse=True)
    ids = dict(Policy.objects.values_list("name", "pk"))
    rows = [row_of(state, ids.get(state.policy)) for state in used]
    return {"rows": rows[:ROWS], "more": max(0, len(rows) - ROWS), "policies": len(ids)}


def row_of(state: LimitState, pk: int | None = None) -> dict[str, Any]:
    """A row of the table. The use is shown as a share of the limit; for a token bucket, of its burst."""
    capacity = usage_service.capacity(state)
    return {
        "state": state,
        "pk": pk,
        "capacity": capacity,
        "burst": capacity != state.limit,
        "share": share(state),
        "tone": tone(state),
    }


def ratio(state: LimitState) -> float:
    return usage_service.ratio(state) or 0.0


def share(state: LimitState) -> int:
    """Per cent, at most 100."""
    return min(100, round(100 * ratio(state)))


def tone(state: LimitState) -> str:
    return "poor" if ratio(state) >= 0.95 else "fair" if ratio(state) >= 0.8 else "good"
