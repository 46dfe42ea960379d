"""One queue, on its own page."""

from __future__ import annotations

from typing import Any

from django.http import Http404

from queues import selectors
from queues.models import Queue
from quotas.models import Project


def figures(projects: list[int] | None, pk: int | None) -> dict[str, Any]:
    queue = Queue.objects.filter(pk=pk or 0).first()
    if queue is None:
        raise Http404
    if projects is None:
        return {"facts": selectors.queue_facts(queue)}
    each = [selectors.queue_facts(queue, project) for project in Project.objects.filter(pk__in=projects)]
    return {"facts": _sum(each)}


def _sum(each: list[dict[str, Any]]) -> dict[str, Any]:
    ages = [facts["oldest_age"] for facts in each if facts["oldest_age"] is not None]
    total: dict[str, Any] = {"oldest_age": max(ages) if ages else None}
    for name in ("waiting", "in_flight", "rate_in", "rate_out", "dead_letters"):
        total[name] = sum(facts[name] for facts in each)
    total["by_priority"] = {
        band: sum(facts["by_priority"][band] for facts in each) for band in ("high", "normal", "low")
    }
    return total
