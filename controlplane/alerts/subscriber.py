"""Which events raise alerts. The code that emits an event does not know about alerts.

The process in which the event happens writes the alert's row, after its transaction; the sender delivers it. Of
a storm (thousands of jobs that die in a second) the first few are written and the others are counted.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import structlog
from django.db import DatabaseError, transaction
from django.db import connection as sql

from controlplane.alerts import records, summaries
from controlplane.alerts.kinds import Trouble
from controlplane.alerts.sender import Sender
from quotas import events
from quotas.snapshot import resolve

WRITE_WINDOW = 1.0
"""Seconds in which so many writes for one kind and subject are made at most:"""
WRITES = 20
MOST_PLACES = 10_000

log = structlog.get_logger(__name__)


def trouble_of(event: events.Event) -> Trouble | None:
    """The problem that an event reports; None if it reports none."""
    match event:
        case events.AccountChanged(after="open"):
            return summaries.breaker_opened(event.pool, event.account, event.why, event.until)
        case events.AccountChanged(after="disabled", why="auth"):
            return summaries.auth_failed(event.pool, event.account)
        case events.PoolLimited():
            return summaries.pool_limited(event.pool, event.why, event.until)
        case events.ThresholdCrossed():
            policy = resolve.snapshot().policies.get(event.policy)
            if policy is not None and not summaries.is_alerted(policy.scope, policy.warn_at):
                return None
            return summaries.threshold(event.policy, event.project, event.key, event.share, event.used, event.limit)
        case events.JobDied(severity="critical", is_ignored=False):
            return summaries.letters(event.project, event.queue, event.category, event.type)
    return None


class Recorder:
    """Writes alerts. One for each process."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._written: dict[tuple[str, str], tuple[float, int]] = {}
        self._more: dict[tuple[str, str], int] = {}

    def receive(self, event: events.Event) -> None:
        """A subscriber. An event that is emitted in a transaction is written after the commit."""
        trouble = trouble_of(event)
        if trouble is None:
            return
        if sql.in_atomic_block:
            transaction.on_commit(lambda: self.write(trouble))
        else:
            self.write(trouble)

    def write(self, trouble: Trouble) -> None:
        """Never fails the emitter. The watch finds what can't be written now."""
        times = self._turn(trouble)
        if not times:
            return
        try:
            records.report(trouble, times)
        except DatabaseError:
            log.exception("alert.unwritten", kind=trouble.kind, subject=trouble.subject)

    def _turn(self, trouble: Trouble) -> int:
        """How many sightings to write now, with those that were postponed; 0: this one is postponed."""
        place, now = trouble.place, self._monotonic()
        with self._lock:
            since, writes = self._written.get(place, (now, 0))
            if now - since >= WRITE_WINDOW:
                since, writes = now, 0
            if writes >= WRITES:
                self._more[place] = self._more.get(place, 0) + 1
                return 0
            if len(self._written) >= MOST_PLACES:
                self._written.clear()
            self._written[place] = (since, writes + 1)
            return 1 + self._more.pop(place, 0)


recorder = Recorder()
SOURCES: tuple[type[events.Event], ...] = (
    events.AccountChanged,
    events.PoolLimited,
    events.ThresholdCrossed,
    events.JobDied,
)


def begin(event: Any) -> None:
    """The dispatcher's process also runs the watch and the sender."""
    if event.role == "dispatcher":
        Sender(event.leads).start()


def connect() -> None:
    for kind in SOURCES:
        events.subscribe(kind, recorder.receive)
    events.subscribe(events.ProcessStarted, begin)
