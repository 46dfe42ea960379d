"""Waiting for capacity in a thread: performs the steps of `waiting` by blocking."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Protocol

from quotas.engine.errors import LimiterUnavailable
from quotas.engine.ids import random_id
from quotas.engine.keys import Keys
from quotas.engine.limits import wait_steps
from quotas.engine.limits.wait_queue import Enqueued, TurnListener, WaitQueue
from quotas.engine.limits.wait_steps import Reply, Step, Waiter
from quotas.engine.limits.waiting import RENEWAL_INTERVAL, LocalQueues, Wait
from quotas.engine.types import Decision, Limit


class Checking(Protocol):
    """What waiting needs of a limiter."""

    def check(
        self,
        limits: Sequence[Limit],
        *,
        dry_run: bool = False,
        token: str = "",
        token_body: str = "",
        reserve: bool | None = None,
    ) -> Decision: ...


class WaitingChecks:
    """Blocking checks on one limiter. Threads share it; with `shared` all processes share one queue per counter."""

    def __init__(
        self,
        limiter: Checking,
        shared: WaitQueue | None = None,
        *,
        keys: Keys | None = None,
    ) -> None:
        self._limiter = limiter
        self._shared = shared
        self._keys = keys or Keys()
        self._queues = LocalQueues()

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

        While the server does not answer and a limit refuses then, it waits for the server: `token` (one of its own, if
        none is given) makes that safe. Raises LimiterUnavailable at the deadline.
        """
        token = token or random_id()
        deadline = time.monotonic() + max_wait
        asked = list(limits() if callable(limits) else limits)

        def ask(dry_run: bool) -> Decision:
            asked[:] = limits() if callable(limits) else limits
            if dry_run:
                return self._limiter.check(asked, dry_run=True)
            return self._limiter.check(asked, token=token, token_body=token_body, reserve=reserve)

        turn = threading.Event()
        waiter = Waiter(turn)
        steps = Wait(waiter, self._queues, self._keys, lambda: asked, deadline).steps()
        with ExitStack() as closing:
            listener = None if self._shared is None else closing.enter_context(self._shared.listener())
            try:
                step = next(steps)
                while True:
                    try:
                        reply = self._perform(step, waiter, turn, ask, listener)
                    except LimiterUnavailable as error:
                        step = steps.throw(error)
                    else:
                        step = steps.send(reply)
            except StopIteration as end:
                decision: Decision = end.value
                return decision
            finally:
                if waiter.counter is not None:
                    counter = waiter.counter
                    self._queues.leave(waiter)
                    self._dequeue(counter, waiter.ticket)

    def waiting(self) -> int:
        """How many wait here."""
        return self._queues.count()

    def _perform(
        self,
        step: Step,
        waiter: Waiter,
        turn: threading.Event,
        ask: Callable[[bool], Decision],
        listener: TurnListener | None,
    ) -> Reply:
        match step:
            case wait_steps.Occupied(counters):
                return self._occupied(counters)
            case wait_steps.Ask(dry_run):
                return ask(dry_run)
            case wait_steps.AskAndEnqueue(counter, waiters):
                enqueued = self._enqueue(counter, waiters)
                return wait_steps.Asked(ask(False), enqueued)
            case wait_steps.Enqueue(counter, waiters):
                return self._enqueue(counter, waiters)
            case wait_steps.Dequeue(counter, ticket):
                self._dequeue(counter, ticket)
            case wait_steps.AwaitTurn(seconds):
                turn.wait(seconds)
            case wait_steps.AwaitCall(seconds):
                self._await_call(listener, waiter, seconds)
            case wait_steps.Sleep(seconds):
                time.sleep(seconds)
        return None

    def _occupied(self, counters: Sequence[bytes]) -> bytes | None:
        here = self._queues.occupied(counters)
        if here is not None or self._shared is None or not counters:
            return here
        try:
            return self._shared.occupied(counters)
        except LimiterUnavailable:
            return None  # the check itself is answered by the policies' own rules, or says so

    def _enqueue(self, counter: bytes, waiters: Sequence[Waiter]) -> Enqueued | None:
        if self._shared is None:
            return None
        try:
            return self._shared.enqueue(counter, [(waiter.ticket, waiter.position) for waiter in waiters])
        except LimiterUnavailable:
            return None

    def _dequeue(self, counter: bytes, ticket: str) -> None:
        if self._shared is not None:
            try:
                self._shared.dequeue(counter, ticket)
            except LimiterUnavailable:
                return  # the ticket expires

    @staticmethod
    def _await_call(listener: TurnListener | None, waiter: Waiter, seconds: float) -> None:
        assert listener is not None, "only a server has tickets of others"
        try:
            listener.wait(waiter.ticket, seconds)
        except LimiterUnavailable:
            time.sleep(min(seconds, RENEWAL_INTERVAL))  # the next renewal notices, and continues alone
