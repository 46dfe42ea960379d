"""Writes one sample per account and minute: the worst state that was seen, and the numbers of successful and failed calls."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.db import transaction

from controlplane.models import AccountSample
from quotas.models import Account

MINUTE_RETENTION = timedelta(days=2)
"""Minutes older than that are merged by the hour."""
KEPT_HOURS = timedelta(days=8)
WORST = ("available", "paused", "half_open", "cooling_down", "open", "disabled")
"""States, from good to bad."""


@dataclass(slots=True)
class _Minute:
    """What was seen of one account. Counts that went down (Redis lost its memory) start anew."""

    health: float
    state: str
    first: tuple[int, int]
    last: tuple[int, int]
    latency: float | None


@dataclass(slots=True)
class AccountHistory:
    """Runs in the leading process; call `note` every few seconds."""

    _start: datetime | None = None
    _seen: dict[int, _Minute] = field(default_factory=dict)
    _before: dict[int, tuple[int, int]] = field(default_factory=dict)

    def note(self, now: datetime, rows: Iterable[Account] | None = None) -> int:
        """Sample all accounts. When a minute is over, write the samples; returns how many."""
        minute = now.replace(second=0, microsecond=0)
        written = 0
        if self._start is not None and minute != self._start:
            written = self._write(self._start, now)
        self._start = minute
        for row in Account.objects.defer("credential") if rows is None else rows:
            counts = (row.successes, sum(row.errors.values()))
            state = row.state if row.enabled else "disabled"
            seen = self._seen.get(row.pk)
            if seen is None:
                first = self._before.get(row.pk, counts)
                self._seen[row.pk] = _Minute(row.health, state, first, counts, row.latency)
                continue
            seen.health = min(seen.health, row.health)
            seen.state = max(seen.state, state, key=badness)
            seen.last, seen.latency = counts, row.latency
        return written

    def _write(self, start: datetime, now: datetime) -> int:
        known = set(Account.objects.filter(pk__in=self._seen).values_list("pk", flat=True))
        samples = [
            AccountSample(
                account_id=pk,
                at=start,
                health=round(seen.health, 3),
                state=seen.state,
                succeeded=max(seen.last[0] - seen.first[0], 0),
                failed=max(seen.last[1] - seen.first[1], 0),
                latency=seen.latency,
            )
            for pk, seen in self._seen.items()
            if pk in known
        ]
        # Two leaders in one minute: the first one's sample stays.
        AccountSample.objects.bulk_create(samples, batch_size=500, ignore_conflicts=True)
        self._before = {pk: seen.last for pk, seen in self._seen.items()}
        self._seen = {}
        if start.minute == 0:
            merge_hour((now - MINUTE_RETENTION).replace(minute=0, second=0, microsecond=0) - timedelta(hours=1))
            AccountSample.objects.filter(at__lt=now - KEPT_HOURS).delete()
        return len(samples)


def merge_hour(hour: datetime) -> None:
    """One sample per account for an hour: its lowest health, its worst state, all of its calls."""
    merged: dict[int, AccountSample] = {}
    others = []
    for sample in AccountSample.objects.filter(at__gte=hour, at__lt=hour + timedelta(hours=1)).order_by("at"):
        first = merged.setdefault(sample.account_id, sample)
        if first is sample:
            continue
        others.append(sample.pk)
        first.health = min(first.health, sample.health)
        first.state = max(first.state, sample.state, key=badness)
        first.succeeded += sample.succeeded
        first.failed += sample.failed
    if not others:
        return
    for first in merged.values():
        first.at = hour
    with transaction.atomic():
        for start in range(0, len(others), 500):
            AccountSample.objects.filter(pk__in=others[start : start + 500]).delete()
        AccountSample.objects.bulk_update(
            merged.values(), ["at", "health", "state", "succeeded", "failed"], batch_size=200
        )


def badness(state: str) -> int:
    """How bad a state is; 0 for the best."""
    return WORST.index(state) if state in WORST else 0
