"""Waiting for capacity: in order of arrival over all processes, with few round trips.

A refused check enters the queue of the counter that refused it, with a ticket (`wait_queue`). Only the first waiter of a
queue calls the limiter, and it sleeps until the exact time that the denial named; all others sleep until they are called.
Of a process's waiters in one queue only the first one renews tickets, for all of them, twice a second at most.
Where the next one in the queue is of the same process, it calls the limiter as soon as the first one leaves: each waiter
takes one round trip, however many there are.

    refused by A -> queue of A -> first in it -> checks -> allowed: dequeued, the next one is called
                                                       -> refused by B: to the queue of B, positioned by its arrival
    a process dies -> its tickets expire within 3 s, and the others continue
    Redis is unavailable  -> each process continues with its own waiters, in their order; where a policy refuses then,
                             they wait for the server too, up to their deadline

A check that does not wait (`max_wait` 0) enters no queue and may overtake those that do.

This module decides and performs nothing: `wait` is a generator that yields steps (`wait_steps`) and receives their results.
`waiting_threads` performs them in a thread, `waiting_async` on an event loop.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

from quotas.engine.errors import LimiterUnavailable, NotAsked
from quotas.engine.keys import Keys
from quotas.engine.limits.wait_queue import Enqueued
from quotas.engine.limits.wait_steps import (
    Ask,
    AskAndEnqueue,
    Asked,
    AwaitCall,
    AwaitTurn,
    Dequeue,
    Enqueue,
    Occupied,
    Reply,
    Sleep,
    Step,
    Waiter,
)
from quotas.engine.types import Decision, Limit

LONGEST_SLEEP = 1.0
"""Seconds after which the first one tries again (capacity may come back early: a refund, a reset), and after which
tickets are renewed."""
SLOT_WAIT_SHARE = 0.2
"""The same, where it waits for a slot: those nearly always come back before their lease ends."""
RENEWED_FOR = 0.5
"""Seconds for which the first one renews only its own ticket after it has renewed all of its process."""
RENEWAL_INTERVAL = 0.05
"""Seconds between two renewals while another process's ticket is first and no blocking read is possible."""
SERVER_PAUSE = 0.1
"""Seconds between two calls of the limiter while its server does not answer."""
_ASK = Ask()


class LocalQueues:
    """This process's waiters by the counter that they wait for, in order of arrival. Safe under threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queues: dict[bytes, list[Waiter]] = {}
        self._renewed: dict[bytes, float] = {}
        """When the tickets of a queue were last renewed, all of them."""

    def occupied(self, counters: Sequence[bytes]) -> bytes | None:
        with self._lock:
            return next((counter for counter in counters if counter in self._queues), None)

    def enter(self, counter: bytes, waiter: Waiter) -> None:
        with self._lock:
            waiter.counter, waiter.behind, waiter.is_called = counter, "", False
            waiters = self._queues.setdefault(counter, [])
            waiters.append(waiter)
            waiters.sort(key=_position)

    def leave(self, waiter: Waiter) -> None:
        """Remove the waiter; the one behind it takes its turn."""
        assert waiter.counter is not None
        with self._lock:
            waiters = self._queues[waiter.counter]
            waiters.remove(waiter)
            if waiters:
                waiters[0].is_called = waiters[0].ticket == waiter.behind
                waiters[0].turn.set()
            else:
                del self._queues[waiter.counter]
                self._renewed.pop(waiter.counter, None)
            waiter.counter = None

    def is_first(self, waiter: Waiter) -> bool:
        """Whether the waiter is the first of its queue; the others wait for their `turn`."""
        assert waiter.counter is not None
        with self._lock:
            first = self._queues[waiter.counter][0] is waiter
            if not first:
                waiter.turn.clear()
            return first

    def due(self, waiter: Waiter, now: float) -> list[Waiter]:
        """The waiters whose tickets the first one renews now: its own, and after `RENEWED_FOR` those of all."""
        counter = waiter.counter
        assert counter is not None
        with self._lock:
            renewed = self._renewed.get(counter)
            if renewed is not None and 0 <= now - renewed < RENEWED_FOR:
                return [waiter]
            self._renewed[counter] = now
            return list(self._queues[counter])

    def enqueued(self, counter: bytes, waiters: Sequence[Waiter], reply: Enqueued) -> list[Waiter]:
        """Note what the server answered. Returns the waiters that have left meanwhile."""
        with self._lock:
            for waiter, position in zip(waiters, reply.positions, strict=True):
                waiter.position = position
                waiter.behind = reply.second if waiter.ticket == reply.first else ""
            here = self._queues.get(counter, [])
            here.sort(key=_position)
            if here:
                here[0].turn.set()
            if reply.count < sum(one.position is not None for one in here):
                self._renewed.pop(counter, None)  # the server has lost tickets: they are added again at once
            return [waiter for waiter in waiters if waiter.counter != counter]

    def count(self) -> int:
        with self._lock:
            return sum(map(len, self._queues.values()))


def _position(waiter: Waiter) -> float:
    """Those without a position came while the server was unavailable: behind the others, in their order."""
    return float("inf") if waiter.position is None else waiter.position


# -- the state machine -------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Wait:
    """One check that waits up to `deadline`. `limits` gives the limits of its last question, or those in force."""

    waiter: Waiter
    queues: LocalQueues
    keys: Keys
    limits: Callable[[], Sequence[Limit]]
    deadline: float
    now: Callable[[], float] = time.monotonic

    def steps(self) -> Generator[Step, Reply, Decision]:
        """The steps to the final decision. The driver makes the waiter leave the queue that it is in at the end.

        Denied at once where waiting can't help within that time: an impossible cost, a limit of 0, or an earliest
        time that lies beyond it. Later arrivals don't overtake those who wait for the same counter; one whose time is
        up before its turn calls the limiter once and returns its decision.
        """
        counter = yield Occupied(list(self._counters()))
        assert counter is None or isinstance(counter, bytes)
        decision = yield from self._ask(Ask(dry_run=counter is not None))
        while self._is_worth_it(decision) or (counter is not None and decision.allowed):
            counter = counter or self._binding(decision)
            if counter is None:
                return decision
            decision, final = yield from self._in_queue(counter)
            if final:
                return decision
            counter = None
        return decision

    def _in_queue(self, counter: bytes) -> Generator[Step, Reply, tuple[Decision, bool]]:
        """Wait in one queue: (the answer, whether it is final); not final where another counter refuses now."""
        self.queues.enter(counter, self.waiter)
        first = yield from self._enqueue(counter, [self.waiter])
        while True:
            left = self.deadline - self.now()
            if left <= 0:
                return (yield from self._ask()), True
            if not self.queues.is_first(self.waiter):
                yield AwaitTurn(left)
            elif not self.waiter.is_called and first not in ("", self.waiter.ticket):
                yield AwaitCall(min(left, LONGEST_SLEEP))
            else:
                decision = yield from self._ask(self._in_turn(counter))
                if not self._is_worth_it(decision):
                    return decision, True
                if self._binding(decision) not in (counter, None):
                    self.queues.leave(self.waiter)
                    yield Dequeue(counter, self.waiter.ticket)
                    return decision, False
                assert decision.retry_after is not None
                yield Sleep(min(decision.retry_after, SLOT_WAIT_SHARE if _by_slots(decision) else LONGEST_SLEEP))
            if not self.waiter.is_called:
                first = yield from self._enqueue(counter, self.queues.due(self.waiter, self.now()))

    def _in_turn(self, counter: bytes) -> Ask | AskAndEnqueue:
        """How the first one asks. One that was called does not know the ticket behind it yet, and requests it along."""
        if not self.waiter.is_called:
            return Ask()
        self.waiter.is_called = False
        return AskAndEnqueue(counter, self.queues.due(self.waiter, self.now()))

    def _ask(self, step: Ask | AskAndEnqueue = _ASK) -> Generator[Step, Reply, Decision]:
        """Call the limiter; while its server does not answer, again until the deadline. Raises LimiterUnavailable then:
        `NotAsked` only if no call reached the server."""
        lost: LimiterUnavailable | None = None
        while True:
            try:
                reply = yield step
            except LimiterUnavailable as error:
                if not isinstance(error, NotAsked):
                    lost = error
                left = self.deadline - self.now()
                if left <= 0:
                    raise (lost or error) from None
                yield Sleep(min(left, SERVER_PAUSE))
            else:
                if isinstance(step, AskAndEnqueue):
                    assert isinstance(reply, Asked)
                    yield from self._note(step.counter, step.waiters, reply.enqueued)
                    return reply.decision
                assert isinstance(reply, Decision)
                return reply

    def _enqueue(self, counter: bytes, waiters: Sequence[Waiter]) -> Generator[Step, Reply, str]:
        """Add or renew tickets. Returns the one that is first; empty where the server is unavailable: each for itself."""
        reply = yield Enqueue(counter, waiters)
        assert reply is None or isinstance(reply, Enqueued)
        return (yield from self._note(counter, waiters, reply))

    def _note(self, counter: bytes, waiters: Sequence[Waiter], reply: Enqueued | None) -> Generator[Step, Reply, str]:
        if reply is None:
            self.waiter.behind = ""
            return ""
        for gone in self.queues.enqueued(counter, waiters, reply):
            yield Dequeue(counter, gone.ticket)  # it left during the call of the server, and was added again
        return reply.first

    def _counters(self) -> dict[bytes, Limit]:
        """The counters that the limits are decided by."""
        return {self.keys.counter(limit): limit for limit in self.limits() if limit.limit is not None}

    def _binding(self, decision: Decision) -> bytes | None:
        """The counter that refused for the longest time."""
        counters = self._counters().items()
        return next((counter for counter, limit in counters if limit.name == decision.binding), None)

    def _is_worth_it(self, decision: Decision) -> bool:
        """Whether waiting may turn a denial."""
        if decision.allowed or decision.impossible or decision.retry_after is None:
            return False
        return decision.retry_after <= self.deadline - self.now()


def _by_slots(decision: Decision) -> bool:
    return any(state.policy == decision.binding and state.algorithm == "concurrency" for state in decision.limits)
