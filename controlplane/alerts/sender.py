"""A thread beside the leading dispatcher that watches, delivers, and keeps accounts' history: it holds up nobody."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog
from django.db import DatabaseError, InterfaceError, close_old_connections
from redis.exceptions import RedisError

from controlplane.alerts.outbox import send_due
from controlplane.alerts.watch import Watch
from controlplane.observability.account_history import AccountHistory
from queues import clock
from quotas import endless
from quotas.engine.errors import LimiterUnavailable

PAUSE = 1.0
EVERY = 5.0
"""Seconds between two looks."""

log = structlog.get_logger(__name__)


class Sender:
    """Works while `leads` says so."""

    def __init__(self, leads: Callable[[], bool]) -> None:
        self._leads = leads
        self._watch = Watch()
        self._history = AccountHistory()
        self._next = 0.0
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = endless.start("alerts", self._turn, self._stopping, vital=True)

    def stop(self) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def _turn(self) -> None:
        sent = 0
        if self._leads():
            try:
                close_old_connections()
                sent = self.work()
            except (DatabaseError, InterfaceError, RedisError, LimiterUnavailable) as error:
                log.warning("alerts.waiting", error=type(error).__name__)
        if not sent:
            self._stopping.wait(PAUSE)

    def work(self) -> int:
        """Look if it is time, and send what is due; how many were tried."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + EVERY
            self._watch.look()
            self._history.note(clock.now())
        return send_due()
