"""Dead letters: open ones, their tracebacks, and groups that failed alike."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

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


@dataclass(frozen=True, slots=True)
class FailureHistory:
    """What happened before to the letters of one fingerprint."""

    resolved_at: datetime | None
    """When one was replayed or discarded last."""
    resolved: int
    per_hour: tuple[int, ...]
    """New letters in each of the last `HOURS`, the oldest first."""


HOURS = 24
MOST_RECENT = 20_000
"""New letters that are counted by hour, the newest ones."""


def failure_histories(
    rows: QuerySet[DeadLetter], fingerprints: Iterable[str], now: datetime
) -> dict[str, FailureHistory]:
    """Of each of those fingerprints. `rows`: the letters, open and handled, that the caller may see."""
    known = list(dict.fromkeys(fingerprints))
    of_these = rows.order_by().filter(fingerprint__in=known)
    handled = of_these.filter(handled_at__isnull=False).values("fingerprint")
    resolved = {
        row["fingerprint"]: (row["last"], row["count"])
        for row in handled.annotate(last=Max("handled_at"), count=Count("*"))
    }
    begin = now - timedelta(hours=HOURS)
    hours = {fingerprint: [0] * HOURS for fingerprint in known}
    recent = of_these.filter(created_at__gt=begin).values_list("fingerprint", "created_at").order_by("-created_at")
    for fingerprint, at in recent[:MOST_RECENT].iterator():
        hours[fingerprint][min(int((at - begin).total_seconds() // 3600), HOURS - 1)] += 1
    return {
        fingerprint: FailureHistory(*resolved.get(fingerprint, (None, 0)), tuple(hours[fingerprint]))
        for fingerprint in known
    }


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
