"""Beside the leading dispatcher: a thread that watches and keeps accounts' history, and a courier for notices.

A receiver that is slow delays neither the watch nor the notices of other rules.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection

import structlog
from django.db import DatabaseError, InterfaceError, close_old_connections
from redis.exceptions import RedisError

from controlplane.alerts import outbox
from controlplane.alerts.watch import Watch
from controlplane.models import AlertNotice
from controlplane.observability.account_history import AccountHistory
from queues.maintenance.callback_sender import CallbackSender
from quotas import clock
from quotas.engine.errors import LimiterUnavailable
from quotas.runtime import background

PAUSE = 1.0
EVERY = 5.0
"""Seconds between two looks."""

log = structlog.get_logger(__name__)


class NoticeOutbox:
    """Notices of alerts; each rule is a receiver of its own."""

    def due(self, count: int, receivers: Collection[str], tenants: Collection[int]) -> list[AlertNotice]:
        return outbox.due(count, [int(receiver) for receiver in receivers])

    def receiver(self, row: AlertNotice) -> str:
        return str(row.rule_id)

    def tenant(self, row: AlertNotice) -> int | None:
        return None

    def take(self, row: AlertNotice) -> bool:
        return outbox.take(row)

    def send(self, row: AlertNotice) -> None:
        outbox.send(row)


class Sender:
    """Works while `leads` says so."""

    def __init__(self, leads: Callable[[], bool]) -> None:
        self._leads = leads
        self._watch = Watch()
        self._history = AccountHistory()
        self._courier = CallbackSender(leads, NoticeOutbox(), name="notices")
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = background.start("alerts", self._turn, self._stopping, vital=True)
        self._courier.start()

    def stop(self) -> None:
        self._stopping.set()
        self._courier.stop()
        if self._thread is not None:
            self._thread.join()

    def _turn(self) -> None:
        if self._leads():
            try:
                close_old_connections()
                self.look()
            except (DatabaseError, InterfaceError, RedisError, LimiterUnavailable) as error:
                log.warning("alerts.waiting", error=type(error).__name__)
        self._stopping.wait(EVERY if self._leads() else PAUSE)

    def look(self) -> None:
        """One look at what is wrong now, and at how accounts do."""
        self._watch.look()
        self._history.note(clock.now())
