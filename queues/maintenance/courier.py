"""A thread beside the leading dispatcher that sends callbacks, so that a slow receiver holds up nobody."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog
from django.db import DatabaseError, close_old_connections

from queues.services.callbacks import send_due

log = structlog.get_logger(__name__)

PAUSE = 0.5


class Courier:
    """Sends while `leads` says so."""

    def __init__(self, leads: Callable[[], bool]) -> None:
        self._leads = leads
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="courier", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            sent = 0
            if self._leads():
                try:
                    close_old_connections()
                    sent = send_due()
                except DatabaseError as error:
                    log.warning("courier.waiting", error=type(error).__name__)
                except Exception:
                    # One callback that can't be sent must not end all others; it is tried again when its lease ends.
                    log.exception("courier.fault")
            if not sent:
                self._stopping.wait(PAUSE)
