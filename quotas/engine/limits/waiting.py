"""Waiting for capacity: in order of arrival over all processes, with few round trips.

A refused check enters the queue of the counter that refused it, with a ticket (`wait_queue.WaitQueue`). Only the first
waiter of a queue asks the limiter, and it sleeps until the exact time that the denial named; all others sleep until
they are called. Of a process's waiters in one queue only the first one renews tickets, for all of them.

    refused by A -> queue of A -> first in it -> asks -> allowed: dequeued, the next one is called
                                                     -> refused by B: to the queue of B, positioned by its arrival
    a process dies -> its tickets end within 3 s, and the others continue
    Redis is away  -> each process continues with its own waiters, in their order

A check that does not wait (`max_wait` 0) enters no queue and may overtake those that do.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from quotas.engine.errors import LimiterUnavailable
from quotas.engine.keys import Keys
from quotas.engine.limits.wait_queue import TurnListener, WaitQueue
from quotas.engine.types import Decision, Limit

LONGEST_SLEEP = 1.0
"""Seconds after which the first one asks again (capacity may come back early: a refund, a reset), and after which
tickets are renewed."""
EARLIER = 0.2
"""The same, where it waits for a slot: those nearly always come back before their lease ends."""


class Checking(Protocol):
    """What a line needs of a limiter."""

    def check(
        self,
        limits: Sequence[Limit],
        *,
        dry_run: bool = False,
        token: str = "",
        token_body: str = "",
        reserve: bool | None = None,
    ) -> Decision: ...


@dataclass(slots=True, eq=False)
class _Waiter:
    """One blocked check."""

    ticket: str = field(default_factory=lambda: secrets.token_urlsafe(9))
    place: int | None = None
    """The moment of arrival as the server counts it; None where the server has not been reached."""
    turn: threading.Event = field(default_factory=threading.Event)


def _place(waiter: _Waiter) -> float:
    """Those without a place came while the server was away: behind the others, in their order."""
    return float("inf") if waiter.place is None else waiter.place


class WaitingLine:
    """Blocking checks on one limiter. Threads share it; with `shared` all processes are in one line."""

    def __init__(
        self,
        limiter: Checking,
        shared: WaitQueue | None = None,
        *,
        keys: Keys | None = None,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        self._limiter = limiter
        self._shared = shared
        self._keys = keys or Keys()
        self._sleep = sleep or time.sleep
        self._lock = threading.Lock()
        self._lines: dict[bytes, list[_Waiter]] = {}

    def check(
        self,
        limits: Sequence[Limit] | Callable[[], Sequence[Limit]],
        *,
        max_wait: float,
        token: str = "",
        token_body: str = "",
        reserve: bool | None = None,
    ) -> Decision:
        """As Limiter.check, but waits up to `max_wait` seconds for capacity. `limits` as a function is called before
        each question, so that what is decided is decided by the limits in force then.

        Denied at once where waiting can't help within that time: an impossible cost, a limit of 0, or an earliest
        time that lies beyond it. Later arrivals don't overtake those who wait for the same counter; one whose time is
        up before its turn asks once and takes what it gets.
        """
        deadline = time.monotonic() + max_wait
        asked: list[Limit] = []

        def now() -> list[Limit]:
            asked[:] = limits() if callable(limits) else limits
            return asked

        def ask() -> Decision:
            return self._limiter.check(now(), token=token, token_body=token_body, reserve=reserve)

        def binding(denial: Decision) -> bytes | None:
            return binding_of(denial, counters_of(asked, self._keys))

        line = self._occupied(list(counters_of(now(), self._keys)))
        decision = ask() if line is None else self._limiter.check(asked, dry_run=True)
        waiter = _Waiter()
        while is_worth_it(decision, deadline) or (line is not None and decision.allowed):
            if line is None:
                line = binding(decision)
                if line is None:
                    break
            decision, done = self._wait_in_line(line, waiter, deadline, ask, binding)
            if done:
                break
            line = None
        return decision

    def waiting(self) -> int:
        """How many wait here."""
        with self._lock:
            return sum(map(len, self._lines.values()))

    # -- one line ------------------------------------------------------------------------------------------------

    def _wait_in_line(
        self,
        line: bytes,
        waiter: _Waiter,
        deadline: float,
        ask: Callable[[], Decision],
        binding: Callable[[Decision], bytes | None],
    ) -> tuple[Decision, bool]:
        """Wait in one line: (the answer, whether it is final); not final where another counter refuses now."""
        first = self._enter(line, waiter)
        listener = self._shared.listener() if self._shared is not None else None
        try:
            while True:
                left = deadline - time.monotonic()
                if left <= 0:
                    return ask(), True
                if not self._is_process_head(line, waiter):
                    waiter.turn.wait(left)
                    first = self._renew(line, waiter)
                    continue
                if first != waiter.ticket and listener is not None and first:
                    self._wait_for_turn(listener, waiter, min(left, LONGEST_SLEEP))
                    first = self._renew(line, waiter)
                    continue
                decision = ask()
                if not is_worth_it(decision, deadline):
                    return decision, True
                if binding(decision) not in (line, None):
                    return decision, False
                assert decision.retry_after is not None
                self._sleep(min(decision.retry_after, EARLIER if by_slots(decision) else LONGEST_SLEEP))
                first = self._renew(line, waiter)
        finally:
            if listener is not None:
                listener.close()
            self._leave(line, waiter)

    def _occupied(self, counters: list[bytes]) -> bytes | None:
        """The counter that others wait for already: a new waiter queues behind them."""
        with self._lock:
            here = next((counter for counter in counters if counter in self._lines), None)
        if here is not None or self._shared is None or not counters:
            return here
        try:
            return self._shared.occupied(counters)
        except LimiterUnavailable:
            return None  # the check itself is answered by the policies' own rules, or says so

    def _enter(self, line: bytes, waiter: _Waiter) -> str:
        """Take a place. Returns the ticket that is first; empty where the server is away: each for itself."""
        first = ""
        if self._shared is not None:
            try:
                (waiter.place,), first = self._shared.enqueue(line, [(waiter.ticket, waiter.place)])
            except LimiterUnavailable:
                first = ""
        with self._lock:
            waiting = self._lines.setdefault(line, [])
            waiting.append(waiter)
            waiting.sort(key=_place)
        return first

    def _is_process_head(self, line: bytes, waiter: _Waiter) -> bool:
        """Whether the waiter is the first of this process's; the others wait for their `turn`."""
        with self._lock:
            is_head = self._lines[line][0] is waiter
            if not is_head:
                waiter.turn.clear()
            return is_head

    def _renew(self, line: bytes, waiter: _Waiter) -> str:
        """Renew the tickets of all who wait here. Returns the ticket that is first, or empty, as `_enter`."""
        if self._shared is None:
            return ""
        with self._lock:  # locked during the round trip, so that a ticket that was just removed does not return
            waiting = self._lines[line]
            try:
                places, first = self._shared.enqueue(line, [(one.ticket, one.place) for one in waiting])
            except LimiterUnavailable:
                return ""
            for one, place in zip(waiting, places, strict=True):
                one.place = place
            waiting.sort(key=_place)
            waiting[0].turn.set()
        return first

    @staticmethod
    def _wait_for_turn(listener: TurnListener, waiter: _Waiter, seconds: float) -> None:
        try:
            listener.wait(waiter.ticket, seconds)
        except LimiterUnavailable:
            time.sleep(min(seconds, 0.05))  # the next attempt notices, and continues alone

    def _leave(self, line: bytes, waiter: _Waiter) -> None:
        with self._lock:
            waiting = self._lines[line]
            waiting.remove(waiter)
            if waiting:
                waiting[0].turn.set()
            else:
                del self._lines[line]
        if self._shared is not None:
            try:
                self._shared.dequeue(line, waiter.ticket)
            except LimiterUnavailable:
                return  # the ticket ends by itself


def is_worth_it(decision: Decision, deadline: float) -> bool:
    """Whether waiting may turn a denial."""
    if decision.allowed or decision.impossible or decision.retry_after is None:
        return False
    return decision.retry_after <= deadline - time.monotonic()


def by_slots(decision: Decision) -> bool:
    return any(state.policy == decision.binding and state.algorithm == "concurrency" for state in decision.limits)


def counters_of(limits: Sequence[Limit], keys: Keys) -> dict[bytes, Limit]:
    """The counters that limits are decided by."""
    return {keys.counter(limit): limit for limit in limits if limit.limit is not None}


def binding_of(decision: Decision, counters: dict[bytes, Limit]) -> bytes | None:
    """The counter that refused for the longest time."""
    for counter, limit in counters.items():
        if limit.name == decision.binding:
            return counter
    return None
