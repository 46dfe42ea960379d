"""A thread beside the leading dispatcher that sends callbacks, some at a time, so that a slow receiver holds up nobody."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from urllib.parse import urlsplit

import structlog
from django.db import DatabaseError, InterfaceError, close_old_connections, connections

from queues.models import Callback
from queues.services import callbacks
from quotas import endless

log = structlog.get_logger(__name__)

PAUSE = 0.5
AT_ONCE = 8
"""Callbacks on their way at once."""
PER_RECEIVER = 2
"""Of them, to one receiver: further ones wait until it has answered."""


class Courier:
    """Sends while `leads` says so."""

    def __init__(self, leads: Callable[[], bool]) -> None:
        self._leads = leads
        self._stopping = threading.Event()
        self._changed = threading.Condition()
        self._underway: Counter[str] = Counter()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = endless.start("courier", self._turn, self._stopping, vital=True)

    def stop(self) -> None:
        """Begin nothing more. What is on its way is not waited for: it is tried again when its lease ends."""
        self._stopping.set()

    def _turn(self) -> None:
        begun = 0
        if self._leads():
            try:
                close_old_connections()
                begun = self._send_some()
            except (DatabaseError, InterfaceError) as error:
                log.warning("courier.waiting", error=type(error).__name__)
        if not begun:
            self._stopping.wait(PAUSE)

    def _send_some(self) -> int:
        """Begin as many as there is room for; how many that were. Waits for room, half a second at most."""
        with self._changed:
            self._changed.wait_for(lambda: self._underway.total() < AT_ONCE, timeout=PAUSE)
            room = AT_ONCE - self._underway.total()
            busy = [receiver for receiver, count in self._underway.items() if count >= PER_RECEIVER]
        begun = 0
        for callback in callbacks.due(room, but=busy):
            receiver = receiver_of(callback.url)
            with self._changed:
                if self._underway[receiver] >= PER_RECEIVER:
                    continue
                self._underway[receiver] += 1
            if not callbacks.take(callback):
                self._end(receiver)
                continue
            threading.Thread(target=self._send, args=(callback, receiver), name="callback", daemon=True).start()
            begun += 1
        return begun

    def _send(self, callback: Callback, receiver: str) -> None:
        try:
            callbacks.send(callback)
        except DatabaseError as error:
            log.warning("courier.unwritten", error=type(error).__name__)  # tried again when its lease ends
        except Exception:
            log.exception("courier.fault", callback=callback.uid)
        finally:
            connections.close_all()
            self._end(receiver)

    def _end(self, receiver: str) -> None:
        with self._changed:
            self._underway[receiver] -= 1
            if not self._underway[receiver]:
                del self._underway[receiver]
            self._changed.notify_all()


def receiver_of(url: str) -> str:
    """Scheme and host of a callback's address, as they begin it."""
    parts = urlsplit(url)
    return url[: len(parts.scheme) + len("://") + len(parts.netloc)]
