"""Which groups of failures operators ignore now: a project's dead letters with one fingerprint."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db.models import Exists, OuterRef, QuerySet

from queues.models import DeadLetter, IgnoredFailure, Job
from queues.states import Status


def without_ignored(rows: QuerySet[DeadLetter], now: datetime) -> QuerySet[DeadLetter]:
    """Those dead letters whose group is not ignored. Usually none is, and the rows are read as without this."""
    return rows.exclude(_of_letter(now)) if _any(now) else rows


def without_ignored_deaths(jobs: QuerySet[Job], now: datetime) -> QuerySet[Job]:
    """Without dead jobs whose open dead letter is ignored."""
    if not _any(now):
        return jobs
    letters = DeadLetter.objects.filter(_of_letter(now), job=OuterRef("pk"), handled_at=None)
    return jobs.exclude(Exists(letters), status=Status.DEAD)


def _any(now: datetime) -> bool:
    return IgnoredFailure.objects.filter(until__gt=now).exists()


def _of_letter(now: datetime) -> Any:
    active = IgnoredFailure.objects.filter(until__gt=now)
    return Exists(active.filter(project=OuterRef("project"), fingerprint=OuterRef("fingerprint")))
