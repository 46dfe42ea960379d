"""The wait ledger: which cause blocked which group of jobs, from when until when.

The dispatcher reports a hold whenever it skips a group or one ordering key of it, and a release whenever it releases
jobs of it. Reports of the same cause that follow each other closely are one interval, so that 40,000 jobs behind one
limit cost a few rows, however often the limit admits one of them. Times are SQL's clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import transaction

from queues.dispatcher.leader import Leader
from queues.models import WaitInterval
from queues.states import GroupKey

JOIN = timedelta(seconds=2)
"""A hold that begins again for the same cause within this time continues: between them single jobs were released."""
SHORTEST = timedelta(milliseconds=50)
"""Shorter intervals are not written."""
FLUSH = timedelta(seconds=1)
"""Between two writes. A leader that is killed loses the ends of intervals of at most this length."""

Cause = tuple[str, str]
"""A reason code (`queues.reason_codes`) and the name of the policy, pool, queue or lane."""
Holder = tuple[GroupKey, str]
"""A group and the ordering key that is blocked, empty for the whole group."""


@dataclass(slots=True)
class Hold:
    cause: Cause
    began: datetime
    until: datetime
    counted_until: datetime
    row: WaitInterval | None = None


class WaitLedger:
    """The intervals of one leader: those that last in memory, those that ended in SQL.

    What is in memory changes only after SQL has committed, so that a write that failed is tried again whole. Nothing is
    written by a dispatcher that leads no longer: `LeadershipLost` is raised instead.
    """

    def __init__(self, leader: Leader) -> None:
        self._leader = leader
        self.holds: dict[Holder, Hold] = {}
        """What lasts now."""
        self._over: list[tuple[Holder, Hold]] = []
        self._flushed: datetime | None = None

    def hold(self, group: GroupKey, ordering_key: str, cause: Cause, at: datetime, until: datetime) -> None:
        """Report that from `at` until `until`, as far as is known, `cause` blocks the group or one ordering key."""
        holder = (group, ordering_key)
        present = self.holds.get(holder)
        if present is not None:
            if present.cause == cause and at <= present.until + JOIN:
                present.until = max(until, at)
                return
            self._end(holder, present, at)
        self.holds[holder] = Hold(cause, at, max(until, at), at)

    def release(self, group: GroupKey, ordering_key: str, at: datetime) -> None:
        """Report that a job of the group with this ordering key is released: the hold ends now."""
        for key in {"", ordering_key}:
            present = self.holds.get((group, key))
            if present is not None and present.until > at:
                present.until = at

    def _end(self, holder: Holder, hold: Hold, at: datetime) -> None:
        hold.until = min(hold.until, at)
        del self.holds[holder]
        self._over.append((holder, hold))

    def flush(self, now: datetime) -> dict[tuple[int, str], float]:
        """Write what began and what ended, at most once in `FLUSH`. Returns the seconds that passed since the last time
        for each queue and code, for the metric."""
        if self._flushed is not None and now - self._flushed < FLUSH:
            return {}
        for holder, hold in [item for item in self.holds.items() if item[1].until + JOIN < now]:
            self._end(holder, hold, now)
        self._write(now)
        seconds = self._count(now)
        self._over.clear()
        self._flushed = now
        return seconds

    def _write(self, now: datetime) -> None:
        fresh, ended = [], []
        for holder, hold in self._over:
            if hold.row is not None:
                hold.row.ended_at = hold.until
                ended.append(hold.row)
            elif hold.until - hold.began >= SHORTEST:
                fresh.append(_row(holder, hold, hold.until))
        opened = [
            (hold, _row(holder, hold, None))
            for holder, hold in self.holds.items()
            if hold.row is None and now - hold.began >= FLUSH
        ]
        fresh += [row for _, row in opened]
        if not (fresh or ended):
            return
        with as_leader(self._leader):
            WaitInterval.objects.bulk_create(fresh, batch_size=500)
            WaitInterval.objects.bulk_update(ended, ["ended_at"], batch_size=200)
        for hold, row in opened:
            hold.row = row

    def _count(self, now: datetime) -> dict[tuple[int, str], float]:
        seconds: dict[tuple[int, str], float] = {}
        for (group, _), hold in [*self.holds.items(), *self._over]:
            end = min(hold.until, now)
            if end > hold.counted_until:
                key = (group.queue_id, hold.cause[0])
                seconds[key] = seconds.get(key, 0.0) + (end - hold.counted_until).total_seconds()
                hold.counted_until = end
        return seconds

    def interrupt(self, cause: Cause, since: datetime, now: datetime) -> None:
        """Write that from `since` until `now` nothing could be released, and end what lasted then."""
        for holder, hold in list(self.holds.items()):
            self._end(holder, hold, since)
        self._flushed = None
        self.flush(now)
        write_gap(self._leader, cause, since, now)

    def discard(self) -> None:
        """Drop the waits in memory: another leader continues from the rows."""
        self.holds.clear()
        self._over.clear()
        self._flushed = None


def _row(holder: Holder, hold: Hold, ended: datetime | None) -> WaitInterval:
    group, ordering_key = holder
    code, name = hold.cause
    return WaitInterval(
        queue_id=group.queue_id, priority=group.priority, project_id=group.project_id, pool=group.pool,
        ordering_key=ordering_key, code=code, name=name[:128], began_at=hold.began, ended_at=ended,
    )  # fmt: skip


def take_over(leader: Leader, last_seen: datetime, now: datetime) -> None:
    """End what an earlier leader left open when it was last seen, and record that no dispatcher led since then."""
    with as_leader(leader):
        WaitInterval.objects.filter(ended_at=None).update(ended_at=last_seen)
        WaitInterval.objects.filter(began_at__gte=last_seen, ended_at=last_seen).delete()
        write_gap(leader, ("no_dispatcher", ""), last_seen, now)


def write_gap(leader: Leader, cause: Cause, began: datetime, ended: datetime) -> None:
    """Write that from `began` to `ended` no job of any group could be released."""
    if ended - began >= SHORTEST:
        with as_leader(leader):
            WaitInterval.objects.create(code=cause[0], name=cause[1], began_at=began, ended_at=ended)


@contextmanager
def as_leader(leader: Leader) -> Iterator[None]:
    """A transaction that only the leader can commit. Raises `LeadershipLost`."""
    with transaction.atomic():
        leader.fence()
        yield
