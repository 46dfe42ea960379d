"""Submitting recurring jobs: once per tick, whatever the number of processes."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import structlog
from croniter import croniter
from django.db import transaction

from queues.errors import QueueError
from queues.models import Recurring
from queues.services.submit import submit_specs
from queues.specs import read_job

log = structlog.get_logger(__name__)


def next_tick(cron: str, timezone: str, after: datetime) -> datetime:
    """The first time behind `after` that the expression names, in its own time zone."""
    local = after.astimezone(ZoneInfo(timezone))
    return croniter(cron, local).get_next(datetime).astimezone(after.tzinfo)


def is_cron(text: str) -> bool:
    """Whether `text` is an expression of five fields."""
    return len(text.split()) == 5 and croniter.is_valid(text)


def submit_due(now: datetime) -> int:
    """Submit what is due. A tick that was missed (nobody led) is made up for once, not for each time.

    The job's idempotency key is the tick itself, so that not even two leaders at once double it.
    """
    made = 0
    for row in Recurring.objects.filter(enabled=True).select_related("project", "queue"):
        if row.next_at is None:
            Recurring.objects.filter(pk=row.pk, next_at=None).update(next_at=next_tick(row.cron, row.timezone, now))
        elif row.next_at <= now:
            made += _submit(row, now)
    return made


def _submit(row: Recurring, now: datetime) -> int:
    assert row.next_at is not None
    tick, error = row.next_at, ""
    body = {
        "type": row.type,
        "payload": row.payload,
        "priority": row.priority,
        "idempotency_key": f"recurring:{row.name}:{tick.isoformat()}",
        **({"queue": row.queue.name} if row.queue else {}),
    }
    with transaction.atomic():
        following = next_tick(row.cron, row.timezone, now)
        if not Recurring.objects.filter(pk=row.pk, next_at=tick).update(next_at=following, last_at=tick, last_error=""):
            return 0
        try:
            with transaction.atomic():
                submit_specs(row.project, [read_job(body)])
        except QueueError as refused:
            error = str(refused)[:500]
            Recurring.objects.filter(pk=row.pk).update(last_error=error)
            log.warning("recurring.refused", name=row.name, error=error)
    return 0 if error else 1
