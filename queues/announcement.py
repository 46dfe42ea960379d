"""Telling the world that jobs went to another status: after the commit, as events."""

from __future__ import annotations

from collections.abc import Iterable

from django.db import transaction

from queues import config
from queues.models import Job
from quotas import events

MAX_REASON = 200


def announce(jobs: Iterable[Job], status: str | None = None, reason: str | None = None) -> None:
    """Emit `JobChanged` for each of `jobs` when the open transaction has been committed, at once where there is none.

    Their own status and reason are told unless others are given. A dead job is told of by its letter.
    """
    cfg = config.current()
    told = []
    for job in jobs:
        queue, project = cfg.queues.get(job.queue_id), cfg.projects.get(job.project_id)
        told.append(
            events.JobChanged(
                job.uid,
                queue.name if queue else "",
                job.type,
                status or job.status,
                (job.reason if reason is None else reason)[:MAX_REASON],
                project=project.slug if project else "",
            )
        )
    if told:
        transaction.on_commit(lambda: events.emit_all(told))
