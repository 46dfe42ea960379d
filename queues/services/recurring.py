"""Submits recurring jobs: once per tick, whatever the number of processes."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from croniter import CroniterBadDateError, croniter
from django.db import transaction
from django.db.models import Min, Q

from queues.errors import QueueError
from queues.models import Recurring
from queues.services.submit import submit_specs
from queues.specs import read_job
from quotas import events


def next_tick(cron: str, timezone: str, after: datetime) -> datetime:
    """The first time behind `after` that the expression names, in its own time zone. Raises `NeverDue`.

    An hour that is named comes once on the day on which clocks go back; `*` goes by real time.
    """
    zone = ZoneInfo(timezone)
    times = croniter(cron, after.astimezone(zone))
    try:
        while True:
            found: datetime = times.get_next(datetime).astimezone(UTC)
            if not found.astimezone(zone).fold or cron.split()[1].startswith("*"):
                return found.astimezone(after.tzinfo)
    except CroniterBadDateError:
        raise NeverDue(f"{cron!r} names no time, as the 31st of February would.") from None


def is_cron(text: str) -> bool:
    """Whether `text` is an expression of five fields that names any time at all."""
    if len(text.split()) != 5 or not croniter.is_valid(text):
        return False
    try:
        next_tick(text, "UTC", datetime.now(UTC))
    except NeverDue:
        return False
    return True


class NeverDue(QueueError):
    """The expression names no time."""


def submit_due(now: datetime) -> int:
    """Submit what is due. A tick that was missed (no dispatcher led) is made up for once, not for each time.

    The job's idempotency key is the tick itself, so that not even two leaders at once double it.
    """
    made = 0
    due = Q(enabled=True) & (Q(next_at=None) | Q(next_at__lte=now))
    disabled = Q(enabled=False, next_at__isnull=False)
    if not Recurring.objects.filter(due | disabled).exists():
        return 0  # on an idle instance, once in two seconds: without the work of building models
    # Once it is enabled again, it is due at its next tick. Those in between were not missed but not wanted.
    Recurring.objects.filter(disabled).update(next_at=None)
    for row in Recurring.objects.filter(due).select_related("project", "queue"):
        if row.next_at is None:
            _begin(row, now)
        else:
            made += _submit(row, now)
    return made


def next_at() -> datetime | None:
    """When the first recurring job is due; None if there is none."""
    found: datetime | None = Recurring.objects.filter(enabled=True).aggregate(first=Min("next_at"))["first"]
    return found


def _begin(row: Recurring, now: datetime) -> None:
    """Set its first time. One that never comes (from before such were refused) says so and stops no other."""
    try:
        first = next_tick(row.cron, row.timezone, now)
    except NeverDue as never:
        Recurring.objects.filter(pk=row.pk).update(last_error=str(never)[:500])
    else:
        Recurring.objects.filter(pk=row.pk, next_at=None).update(next_at=first)


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
            events.emit(events.RecurringJobRefused(row.name, error))
    return 0 if error else 1
