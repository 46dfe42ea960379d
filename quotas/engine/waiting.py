"""Waiting for capacity: in order of arrival, with one question at a time.

Requests that compete for the same counters stand in one line. Only its head asks the limiter, and it sleeps until the
exact time that the denial named; the others sleep until they are the head. The line is this process's own: between
processes, whoever asks first after the time has come is served.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from .types import Decision, Limit

LONGEST_SLEEP = 1.0
"""Seconds after which the head asks again: capacity may come back early (a refund, a released slot, a reset)."""


class Checking(Protocol):
    """What a line needs of a limiter."""

    def check(
        self, limits: Sequence[Limit], *, token: str = "", token_body: str = "", reserve: bool | None = None
    ) -> Decision: ...


class WaitingLine:
    """Blocking checks on one limiter. Threads share it."""

    def __init__(self, limiter: Checking, *, sleep: Callable[[float], object] | None = None) -> None:
        self._limiter = limiter
        self._sleep = sleep or time.sleep
        self._lock = threading.Lock()
        self._lines: dict[tuple[tuple[str, str, str], ...], deque[threading.Event]] = {}

    def check(
        self,
        limits: Sequence[Limit],
        *,
        max_wait: float,
        token: str = "",
        token_body: str = "",
        reserve: bool | None = None,
    ) -> Decision:
        """As Limiter.check, but waits up to `max_wait` seconds for capacity.

        Denied at once where waiting can't help within that time: an impossible cost, a limit of 0, or an earliest
        time that lies beyond it. Later arrivals don't overtake those who wait for the same counters; one whose time
        is up before its turn asks once and takes what it gets.
        """
        deadline = time.monotonic() + max_wait
        line = tuple((limit.id, limit.partition, limit.subject) for limit in limits)
        turn = threading.Event()
        with self._lock:
            waiting = self._lines.setdefault(line, deque())
            waiting.append(turn)
            if len(waiting) == 1:
                turn.set()
        try:
            turn.wait(max(0.0, deadline - time.monotonic()))
            while True:
                decision = self._limiter.check(limits, token=token, token_body=token_body, reserve=reserve)
                if decision or decision.impossible or decision.retry_after is None or not turn.is_set():
                    return decision
                left = deadline - time.monotonic()
                if decision.retry_after > left:
                    return decision
                self._sleep(min(decision.retry_after, LONGEST_SLEEP))
        finally:
            with self._lock:
                waiting.remove(turn)
                if waiting:
                    waiting[0].set()
                else:
                    self._lines.pop(line, None)
