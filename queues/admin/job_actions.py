"""Actions on many jobs of the list: cancel, retry, discard. They run in the background."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone

from queues import job_search, reason_codes
from queues.admin import job_list
from queues.admin.dead_letter_actions import MOST_CHOSEN, NO_FILTERS, say_begun, say_too_many
from queues.models import Job, Queue
from queues.selectors import job_filter
from queues.services import bulk_actions
from queues.services.bulk_records import JOBS
from quotas.admin.audit import actor_of
from quotas.admin.bulk import across, bulk_action, token_of
from quotas.admin.visibility import shown_slugs
from quotas.models import Project

FILTERS = {
    "q", "status__exact", "progress", "why", "queue__id__exact", "project__id__exact", "type__icontains",
    "batch__id__exact",
}  # fmt: skip
"""Members of the list's address that can be stored as a filter."""


def described(job: Job) -> str:
    """One job of a confirmation."""
    user = f", user {job.user}" if job.user else ""
    return f"{job.type} {job.uid}: {job.get_status_display().lower()}, queue {job.queue.name}{user}"


def in_background(verb: str) -> Any:
    def together(request: HttpRequest, rows: QuerySet[Any], reason: str) -> None:
        filter = filter_of(request, rows)
        if filter is None:
            say_too_many(request, "jobs")
            return
        action = bulk_actions.begin(
            verb, filter, project=None, actor=actor_of(request), reason=reason, target=JOBS,
            uid=token_of(request), undo_for=bulk_actions.UNDO_FOR,
        )  # fmt: skip
        say_begun(request, action, "job")

    return together


def filter_of(request: HttpRequest, rows: QuerySet[Any]) -> dict[str, Any] | None:
    """The jobs that the operator has confirmed, as a filter that chooses the same ones later. None: impossible."""
    given = request.GET
    if not across(request) or set(given) - FILTERS - NO_FILTERS:
        ids = list(rows.order_by("pk").values_list("pk", flat=True)[: MOST_CHOSEN + 1])
        return {"jobs": ids} if len(ids) <= MOST_CHOSEN else None
    chosen: dict[str, Any] = {"newest": int(request.POST["newest"])}
    if text := given.get("q", "").strip():
        chosen |= {"search": text, "at": timezone.now().isoformat(), "floor": max(job_search.scan_floor(), 0)}
    for parameter, name in (
        ("status__exact", "status"), ("progress", "progress"), ("type__icontains", "type_has"),
    ):  # fmt: skip
        if value := given.get(parameter):
            chosen[name] = value
    if batch := given.get("batch__id__exact"):
        chosen["batch"] = int(batch)
    if queue := given.get("queue__id__exact"):
        chosen["queue"] = Queue.objects.values_list("name", flat=True).get(pk=queue)
    if project := given.get("project__id__exact"):
        chosen["project"] = Project.objects.values_list("slug", flat=True).get(pk=project)
    if code := given.get("why"):
        if code in job_filter.STAGE_CODES:
            chosen["stage_code"] = code
        else:
            found = reason_codes.by_group(job_list.groups(request))
            chosen["groups"] = [list(key) for key, (held_by, _) in found.items() if held_by == code]
    shown = shown_slugs(request)
    if shown is not None:
        chosen["projects"] = shown
    return chosen


ACTIONS = [
    bulk_action(
        "Cancel jobs",
        question="Cancel {count} {noun}? Running ones are stopped.",
        together=in_background("cancel"),
        only=job_filter.eligible("cancel"),
        left_out="{count} more can't be cancelled: they have ended.",
        described=described,
        danger=True,
    ),
    bulk_action(
        "Retry jobs",
        question="Retry {count} dead {noun}? They are requeued with their attempts reset, under the same quotas.",
        together=in_background("retry"),
        only=job_filter.eligible("retry"),
        left_out="{count} more can't be retried: they are not dead, or their dead letter was discarded.",
        described=described,
    ),
    bulk_action(
        "Discard jobs",
        question="Discard the dead letters of {count} {noun}? The jobs stay dead.",
        together=in_background("discard"),
        only=job_filter.eligible("discard"),
        left_out="{count} more have no open dead letter.",
        described=described,
        danger=True,
    ),
]
