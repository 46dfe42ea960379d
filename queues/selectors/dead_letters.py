"""Dead letters: open ones, their tracebacks, and groups that failed alike."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.db.models import Count, Max, Min, QuerySet

from queues.models import Attempt, DeadLetter
from quotas.models import Project


@dataclass(frozen=True, slots=True)
class DeadLetterGroup:
    """Dead letters with one fingerprint."""

    fingerprint: str
    category: str
    severity: str
    type: str
    count: int
    first_at: datetime
    last_at: datetime
    first: int
    """Primary key of the first letter."""
    example: str
    """Id of the last letter."""
    error: str
    """Of the last letter."""


def open_dead_letters(project: Project | None = None) -> int:
    """How many dead letters are not handled yet."""
    rows = DeadLetter.objects.filter(handled_at=None)
    return (rows if project is None else rows.filter(project=project)).count()


def traceback_of(letter: DeadLetter) -> str | None:
    """The traceback of the last attempt before the letter that left one."""
    attempts = Attempt.objects.filter(job=letter.job_id, ended_at__lte=letter.created_at).exclude(traceback="")
    return attempts.order_by("-number").values_list("traceback", flat=True).first()


def dead_letter_groups(
    rows: QuerySet[DeadLetter], *, below: int | None = None, count: int = 500
) -> list[DeadLetterGroup]:
    """Group dead letters that failed alike. Ordered by their first letters, newest first; `below`: only groups whose
    first letter has a lower id."""
    grouped = (
        rows.order_by()
        .values("fingerprint", "category", "severity", "type")
        .annotate(
            count=Count("id"), first_at=Min("created_at"), last_at=Max("created_at"), first=Min("id"), last=Max("id")
        )
    )  # fmt: skip
    if below is not None:
        grouped = grouped.filter(first__lt=below)
    found = list(grouped.order_by("-first")[:count])
    examples = {row.pk: row for row in DeadLetter.objects.filter(pk__in=[group["last"] for group in found])}
    return [
        DeadLetterGroup(
            fingerprint=group["fingerprint"],
            category=group["category"],
            severity=group["severity"],
            type=group["type"],
            count=group["count"],
            first_at=group["first_at"],
            last_at=group["last_at"],
            first=group["first"],
            example=examples[group["last"]].uid,
            error=examples[group["last"]].error,
        )
        for group in found
    ]
