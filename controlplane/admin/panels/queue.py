"""One queue, on its own page: now, and over the chosen period."""

from __future__ import annotations

from typing import Any

from django.http import Http404
from django.utils import timezone

from controlplane.admin import charts
from controlplane.admin.panels import queue_history
from controlplane.admin.panels.queue_states import pauses, utilisation
from controlplane.admin.periods import Period
from queues.models import Job, Queue
from queues.selectors.batch_end import binding_and_end
from queues.selectors.queues import QueueFacts, queue_facts
from queues.states import LIVE_STAGES
from quotas.models import Project

DEPTH, RATE = 90.0, 50.0
"""Heights of the chart's two parts: depth above, finished jobs below."""


def figures(projects: list[int] | None, pk: int | None, period: Period) -> dict[str, Any]:
    queue = Queue.objects.filter(pk=pk or 0).first()
    if queue is None:
        raise Http404
    if projects is None:
        facts: Any = queue_facts(queue)
    else:
        facts = _sum([queue_facts(queue, project) for project in Project.objects.filter(pk__in=projects)])
    running = facts.in_flight if isinstance(facts, QueueFacts) else facts["in_flight"]
    return {
        "facts": facts,
        "queue": queue,
        "pause": pauses([queue]).get(queue.pk),
        "used": utilisation(queue, running) if projects is None else None,
        **_forecast(queue, projects),
        "chart": _chart(queue, projects, period),
        "period": period,
    }


def _forecast(queue: Queue, projects: list[int] | None) -> dict[str, Any]:
    """When the queue is empty if nothing is added, and what limits it; of the visible projects' jobs."""
    jobs = Job.objects.filter(queue=queue)
    if projects is not None:
        jobs = jobs.filter(project__in=projects)
    left = jobs.filter(stage__in=LIVE_STAGES).count()
    binding, end = binding_and_end(jobs, left) if left else (None, None)
    return {"left": left, "binding": binding, "end": end}


def _chart(queue: Queue, projects: list[int] | None, period: Period) -> dict[str, Any]:
    steps = queue_history.steps(period, projects, queue.pk)
    starts = [step.start for step in steps]
    depth, top = charts.bars(
        [step.depth for step in steps], ("low", "normal", "high"), starts, period, base=DEPTH, height=DEPTH
    )
    ended = [{kind: step.counts[kind] for kind in ("completed", "dead", "cancelled")} for step in steps]
    rates, most = charts.bars(
        ended, ("completed", "dead", "cancelled"), starts, period, base=DEPTH + 14 + RATE, height=RATE
    )
    return {
        **queue_history.summary(steps),
        "depth": depth,
        "top": top,
        "rates": rates,
        "most": most,
        "enqueued": sum(step.counts["enqueued"] for step in steps),
        "finished": sum(sum(each.values()) for each in ended),
        "first": charts.label(starts[0], period),
        "last": charts.label(timezone.now(), period, zone=True),
        "any": any(step.sampled for step in steps),
    }


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
