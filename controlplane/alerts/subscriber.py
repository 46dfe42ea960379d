"""Which events are troubles. A subscriber only: what emits them knows nothing of alerts.

An alert is a row that is written where the event happens, after its transaction; delivery is somebody else's work. Of
a storm (thousands of jobs that die in a second) the first few are written and the others are counted.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import structlog
from django.db import DatabaseError, transaction
from django.db import connection as sql

from controlplane.alerts import records, summaries
from controlplane.alerts.kinds import Trouble
from controlplane.alerts.sender import Sender
from quotas import events
from quotas.snapshot import resolve

TOGETHER = 1.0
"""Seconds in which so many writes for one kind and subject are made at most:"""
WRITES = 20
MOST_PLACES = 10_000

log = structlog.get_logger(__name__)


def trouble_of(event: events.Event) -> Trouble | None:
    """What is wrong according to this event; None: nothing."""
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
        case events.JobDied(severity="critical"):
            return summaries.letters(event.project, event.queue, event.category, event.type)
    return None


class Recorder:
    """Writes troubles down. One for each process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._written: dict[tuple[str, str], tuple[float, int]] = {}
        self._more: dict[tuple[str, str], int] = {}

    def hear(self, event: events.Event) -> None:
        """A subscriber. What was emitted in a transaction is written when that is committed."""
        trouble = trouble_of(event)
        if trouble is None:
            return
        if sql.in_atomic_block:
            transaction.on_commit(lambda: self.write(trouble))
        else:
            self.write(trouble)

    def write(self, trouble: Trouble) -> None:
        """Never fails its emitter: what can't be written now is seen by the watch, which looks at what is so."""
        times = self._turn(trouble)
        if not times:
            return
        try:
            records.report(trouble, times)
        except DatabaseError:
            log.exception("alert.unwritten", kind=trouble.kind, subject=trouble.subject)

    def _turn(self, trouble: Trouble) -> int:
        """How many are to be written now, with those that were held back; 0: it is held back."""
        place, now = trouble.place, time.monotonic()
        with self._lock:
            since, writes = self._written.get(place, (now, 0))
            if now - since >= TOGETHER:
                since, writes = now, 0
            if writes >= WRITES:
                self._more[place] = self._more.get(place, 0) + 1
                return 0
            if len(self._written) >= MOST_PLACES:
                self._written.clear()
            self._written[place] = (since, writes + 1)
            return 1 + self._more.pop(place, 0)


recorder = Recorder()
HEARD: tuple[type[events.Event], ...] = (
    events.AccountChanged,
    events.PoolLimited,
    events.ThresholdCrossed,
    events.JobDied,
)


def begin(event: Any) -> None:
    """The dispatcher's process also watches and delivers."""
    if event.role == "dispatcher":
        Sender(event.leads).start()


def connect() -> None:
    for kind in HEARD:
        events.subscribe(kind, recorder.hear)
    events.subscribe(events.ProcessStarted, begin)
