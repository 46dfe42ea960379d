"""One queue, on its own page."""

from __future__ import annotations

from typing import Any

from django.http import Http404

from queues.models import Queue
from queues.selectors.queues import QueueFacts, queue_facts
from quotas.models import Project


def figures(projects: list[int] | None, pk: int | None) -> dict[str, Any]:
    queue = Queue.objects.filter(pk=pk or 0).first()
    if queue is None:
        raise Http404
    if projects is None:
        return {"facts": queue_facts(queue)}
    each = [queue_facts(queue, project) for project in Project.objects.filter(pk__in=projects)]
    return {"facts": _sum(each)}


def _sum(each: list[QueueFacts]) -> dict[str, Any]:
    ages = [facts.oldest_age for facts in each if facts.oldest_age is not None]
    return {
        "oldest_age": max(ages) if ages else None,
        "waiting": sum(facts.waiting for facts in each),
        "in_flight": sum(facts.in_flight for facts in each),
        "rate_in": sum(facts.rate_in for facts in each),
        "rate_out": sum(facts.rate_out for facts in each),
        "dead_letters": sum(facts.dead_letters for facts in each),
        "by_priority": {band: sum(facts.by_priority[band] for facts in each) for band in ("high", "normal", "low")},
    }
