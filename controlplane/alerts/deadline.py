"""A deadline for all of one call of a library that has only timeouts of its own.

A socket's timeout begins anew with each byte that arrives, so a receiver that sends a byte now and then would occupy its
sender for ever. Here the call runs in a thread of its own, which is interrupted when the time is over.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from queues.call_threads import raise_in

T = TypeVar("T")

INTERRUPTIONS = 3
INTERRUPT_WAIT = 0.5
"""Seconds for a call to end after each interruption: it ends at the next byte, or by the library's own timeout."""


class Overdue(BaseException):
    """Raised in the thread of a call whose time is over. No `Exception`: libraries catch those, and continue."""


class TooSlow(Exception):
    """The call did not end in time."""


class Deadline:
    """Calls that may take `seconds`. Of the calls under one name, one runs at a time: one that can't be interrupted
    is not joined by others."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._lock = threading.Lock()
        self._running: dict[str, threading.Thread] = {}

    def within(self, name: str, call: Callable[[], T]) -> T:
        """What `call` returns, or raises. Raises `TooSlow` where it has not ended in time, or an earlier one has not."""
        found: list[T] = []
        raised: list[BaseException] = []

        def run() -> None:
            try:
                found.append(call())
            except BaseException as error:  # noqa: BLE001 - handed on to the caller
                raised.append(error)

        thread = threading.Thread(target=run, name="notify", daemon=True)
        with self._lock:
            before = self._running.get(name)
            if before is not None and before.is_alive():
                raise TooSlow(TooSlow.__doc__)
            self._running[name] = thread
            thread.start()
        thread.join(self.seconds)
        for _ in range(INTERRUPTIONS):
            if not thread.is_alive():
                break
            raise_in(thread.ident or 0, Overdue)
            thread.join(INTERRUPT_WAIT)
        if thread.is_alive() or (raised and isinstance(raised[0], Overdue)):
            raise TooSlow(TooSlow.__doc__)
        with self._lock:
            self._running.pop(name, None)
        if raised:
            raise raised[0]
        return found[0]
