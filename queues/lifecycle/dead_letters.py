"""Writes dead letters: category, severity, and a fingerprint that groups similar failures."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from datetime import datetime

from queues import config
from queues.models import DeadLetter, IgnoredFailure, Job
from quotas import events
from quotas.engine.categories import Category

_VARIABLE = re.compile(r"0x[0-9a-fA-F]+|[0-9a-fA-F-]{16,}|\d+")


def fingerprint_of(type: str, category: str, error: str) -> str:
    """A hash that is equal for errors that differ in numbers, ids and addresses only."""
    text = f"{type}\x00{category}\x00{_VARIABLE.sub('#', error)[:500]}"
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).hexdigest()


def write(jobs: Sequence[Job], now: datetime) -> list[DeadLetter]:
    """One letter for each of `jobs`, which are dead as of now; inside the transaction that made them so."""
    letters = DeadLetter.objects.bulk_create(
        [
            DeadLetter(
                job=job,
                project_id=job.project_id,
                queue_id=job.queue_id,
                type=job.type,
                category=job.category,
                severity=Category.of(job.category).severity,
                fingerprint=fingerprint_of(job.type, job.category, job.error),
                error=job.error,
                attempts=job.attempts_made,
                created_at=now,
            )
            for job in jobs
        ]
    )
    cfg = config.current()
    ignored = _ignored(letters, now)
    for job, letter in zip(jobs, letters, strict=True):
        queue, project = cfg.queues.get(job.queue_id), cfg.projects.get(job.project_id)
        events.emit(
            events.JobDied(
                job=job.uid,
                queue=queue.name if queue else "",
                type=job.type,
                letter=letter.uid,
                category=letter.category,
                severity=letter.severity,
                project=project.slug if project else "",
                is_ignored=(letter.project_id, letter.fingerprint) in ignored,
            )
        )
    return letters


def _ignored(letters: Sequence[DeadLetter], now: datetime) -> set[tuple[int, str]]:
    """(project, fingerprint) of those that operators ignore."""
    rows = IgnoredFailure.objects.filter(fingerprint__in={letter.fingerprint for letter in letters}, until__gt=now)
    return set(rows.order_by().values_list("project_id", "fingerprint"))
