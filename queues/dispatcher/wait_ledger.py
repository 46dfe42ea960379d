"""The wait ledger: which cause held which group of jobs, from when until when.

The dispatcher reports a hold whenever it passes over a group or one ordering key of it, and a release whenever jobs of
it go on. Reports of the same cause that follow each other closely are one interval, so that 40,000 jobs behind one
limit cost a few rows, however often the limit lets one of them through. Times are SQL's clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from queues.models import WaitInterval
from queues.ready_groups import GroupKey

JOIN = timedelta(seconds=1)
"""A hold that begins again for the same cause within this time goes on: between them single jobs were released."""
SHORTEST = timedelta(milliseconds=50)
"""Shorter intervals are not written."""
FLUSH = timedelta(seconds=1)
"""Between two writes. A leader that is killed loses the ends of intervals of at most this length."""

Holder = tuple[GroupKey, str]
"""A group and the ordering key that is held, empty for the whole group."""


@dataclass(slots=True)
class _Hold:
    code: str
    name: str
    began: datetime
    until: datetime
    row: WaitInterval | None = None


class WaitLedger:
    """The intervals of one leader: those that last in memory, those that ended in SQL."""

    def __init__(self) -> None:
        self._holds: dict[Holder, _Hold] = {}
        self._over: list[tuple[Holder, _Hold]] = []
        self._flushed: datetime | None = None

    def hold(self, group: GroupKey, ordering_key: str, code: str, name: str, at: datetime, until: datetime) -> None:
        """Report that from `at` until `until`, as far as is known, `code` holds the group or one ordering key of it."""
        holder = (group, ordering_key)
        present = self._holds.get(holder)
        if present is not None:
            if (present.code, present.name) == (code, name) and at <= present.until + JOIN:
                present.until = max(until, at)
                return
            self._end(holder, present, at)
        self._holds[holder] = _Hold(code, name, at, max(until, at))

    def release(self, group: GroupKey, ordering_key: str, at: datetime) -> None:
        """Report that a job of the group with this ordering key goes on: what held it ends now."""
        for key in {"", ordering_key}:
            present = self._holds.get((group, key))
            if present is not None and present.until > at:
                present.until = at

    def _end(self, holder: Holder, hold: _Hold, at: datetime) -> None:
        hold.until = min(hold.until, at)
        del self._holds[holder]
        self._over.append((holder, hold))

    def flush(self, now: datetime) -> list[WaitInterval]:
        """Write what began and what ended, at most once in `FLUSH`. Returns the intervals that ended."""
        if self._flushed is not None and now - self._flushed < FLUSH:
            return []
        self._flushed = now
        for holder, hold in [item for item in self._holds.items() if item[1].until + JOIN < now]:
            self._end(holder, hold, now)
        over, self._over = self._over, []
        fresh, ended = [], []
        for holder, hold in over:
            if hold.row is not None:
                hold.row.ended_at = hold.until
                ended.append(hold.row)
            elif hold.until - hold.began >= SHORTEST:
                fresh.append(_row(holder, hold, hold.until))
        for holder, hold in self._holds.items():
            if hold.row is None and now - hold.began >= FLUSH:
                hold.row = _row(holder, hold, None)
                fresh.append(hold.row)
        if fresh:
            WaitInterval.objects.bulk_create(fresh, batch_size=500)
        if ended:
            WaitInterval.objects.bulk_update(ended, ["ended_at"], batch_size=200)
        return ended + [row for row in fresh if row.ended_at is not None]

    def discard(self) -> None:
        """Forget what lasts: another leader goes on from the rows."""
        self._holds.clear()
        self._over.clear()
        self._flushed = None


def _row(holder: Holder, hold: _Hold, ended: datetime | None) -> WaitInterval:
    (queue_id, priority, project_id, pool), ordering_key = holder
    return WaitInterval(
        queue_id=queue_id, priority=priority, project_id=project_id, pool=pool, ordering_key=ordering_key,
        code=hold.code, name=hold.name[:128], began_at=hold.began, ended_at=ended,
    )  # fmt: skip


def take_over(last_seen: datetime, now: datetime) -> None:
    """End what an earlier leader left open when it was last seen, and write that nobody led since then."""
    WaitInterval.objects.filter(ended_at=None).update(ended_at=last_seen)
    WaitInterval.objects.filter(began_at__gt=last_seen, ended_at=last_seen).delete()
    write_gap("no_dispatcher", "", last_seen, now)


def write_gap(code: str, name: str, began: datetime, ended: datetime) -> None:
    """Write that from `began` to `ended` no job of any group could be released."""
    if ended - began >= SHORTEST:
        WaitInterval.objects.create(code=code, name=name, began_at=began, ended_at=ended)


def names_of(intervals: Iterable[WaitInterval]) -> dict[tuple[int, str], float]:
    """Seconds by queue and code, for the metric."""
    found: dict[tuple[int, str], float] = {}
    for interval in intervals:
        if interval.queue_id is None or interval.ended_at is None:
            continue
        key = (interval.queue_id, interval.code)
        found[key] = found.get(key, 0.0) + (interval.ended_at - interval.began_at).total_seconds()
    return found
