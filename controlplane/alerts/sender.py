"""Two threads beside the leading dispatcher: one compares alerts with SQL and writes the history of accounts, one sends notices.

A slow receiver delays neither the watch nor the notices of other rules.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from django.db import DatabaseError, InterfaceError, close_old_connections
from redis.exceptions import RedisError

from controlplane.alerts import outbox
from controlplane.alerts.watch import Watch
from controlplane.observability.account_history import AccountHistory
from controlplane.observability.queue_history import QueueHistory
from quotas import clock, events
from quotas.engine.errors import LimiterUnavailable
from quotas.runtime import background
from quotas.runtime.outbox_sender import OutboxSender

FAILURE_PAUSE = 1.0
POLL_INTERVAL = 5.0
"""Seconds between two looks."""


class Sender:
    """Works while `leads()` is true."""

    def __init__(self, leads: Callable[[], bool]) -> None:
        self._leads = leads
        self._watch = Watch()
        self._history = AccountHistory()
        self._queues = QueueHistory()
        self._notices = OutboxSender(leads, outbox.notices, "notices")
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = background.start("alerts", self._turn, self._stopping, vital=True)
        self._notices.start()

    def stop(self) -> None:
        self._stopping.set()
        self._notices.stop()
        if self._thread is not None:
            self._thread.join()

    def _turn(self) -> None:
        if self._leads():
            try:
                close_old_connections()
                self.look()
            except (DatabaseError, InterfaceError, RedisError, LimiterUnavailable) as error:
                events.emit(events.ServiceUnavailable("alerts", "looking for alerts", type(error).__name__))
        self._stopping.wait(POLL_INTERVAL if self._leads() else FAILURE_PAUSE)

    def look(self) -> None:
        """Compare alerts with SQL once, and sample the accounts and queues."""
        self._watch.look()
        self._notices.look_now()
        self._history.note(clock.now())
        self._queues.note(clock.now())
