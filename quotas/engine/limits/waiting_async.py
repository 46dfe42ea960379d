"""Waiting for capacity on an event loop: performs the steps of `waiting` without a thread for each waiter.

A waiter is a coroutine. Where its caller goes away it is cancelled: it leaves the queue, and a charge that was in flight
then is refunded.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from quotas.engine.errors import LimiterUnavailable
from quotas.engine.keys import Keys
from quotas.engine.limits import wait_steps
from quotas.engine.limits.wait_queue import LEASE, Enqueued, call_commands, queue_keys, turn_key
from quotas.engine.limits.wait_steps import Asked, Reply, Step, Waiter
from quotas.engine.limits.waiting import RENEWAL_INTERVAL, LocalQueues, Wait
from quotas.engine.redis.scripts import Call, load, pack
from quotas.engine.types import Decision, Limit


class Asking(Protocol):
    """What waiting needs of a limiter, each awaited. Raises LimiterUnavailable as the limiter does.

    Where it does, the check is repeated, though the server may have run it: all checks of one object charge once.
    """

    @property
    def limits(self) -> Sequence[Limit]:
        """The limits of the last question; before the first one, those in force."""

    async def check(self, *, dry_run: bool) -> Decision:
        """Check once, by the limits that are in force now; `dry_run` charges nothing."""

    async def refund(self, decision: Decision) -> None:
        """Refund what an allowed decision has charged: its caller is gone."""

    def lost(self, error: LimiterUnavailable) -> None:
        """A check was not answered, and is not repeated: refund later what it may have charged."""


class Connection(Protocol):
    """The connection to the server. Each method raises LimiterUnavailable."""

    async def run(self, call: Call) -> Any:
        """The reply to a script."""

    async def send(self, commands: Sequence[bytes]) -> list[Any]:
        """The replies to packed commands."""

    async def listen(self, key: bytes, seconds: float) -> bool:
        """Wait until something is pushed to a list, at most so long; False where this connection can't wait."""


class AsyncWaitingChecks:
    """Waiting checks of one event loop, in one queue per counter with those of all threads and processes."""

    def __init__(self, connection: Connection, keys: Keys, *, clock: Callable[[], int] | None = None) -> None:
        self._connection = connection
        self._keys = keys
        self._clock = clock
        self._queues = LocalQueues()
        self._enqueue_script, self._dequeue_script = load("wait_enqueue"), load("wait_dequeue")
        self._background: set[asyncio.Future[None]] = set()

    async def check(self, asking: Asking, *, max_wait: float) -> Decision:
        """As WaitingChecks.check. Cancelled, it leaves its queue and charges nothing."""
        turn = asyncio.Event()
        waiter = Waiter(turn)
        deadline = time.monotonic() + max_wait
        steps = Wait(waiter, self._queues, self._keys, lambda: asking.limits, deadline).steps()
        try:
            step = next(steps)
            while True:
                try:
                    reply = await self._perform(step, waiter, turn, asking)
                except LimiterUnavailable as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(reply)
        except StopIteration as end:
            decision: Decision = end.value
            return decision
        except LimiterUnavailable as error:
            asking.lost(error)
            raise
        finally:
            if waiter.counter is not None:
                counter = waiter.counter
                self._queues.leave(waiter)
                self._in_background(self._dequeue(counter, waiter.ticket))

    def waiting(self) -> int:
        """How many wait here."""
        return self._queues.count()

    async def _perform(self, step: Step, waiter: Waiter, turn: asyncio.Event, asking: Asking) -> Reply:
        match step:
            case wait_steps.Occupied(counters):
                return await self._occupied(counters)
            case wait_steps.Ask(dry_run):
                return await (asking.check(dry_run=True) if dry_run else self._ask(asking))
            case wait_steps.AskAndEnqueue(counter, waiters):
                return await self._ask_and_enqueue(asking, counter, waiters)
            case wait_steps.Enqueue(counter, waiters):
                return await self._enqueue(counter, waiters)
            case wait_steps.Dequeue(counter, ticket):
                self._in_background(self._dequeue(counter, ticket))
            case wait_steps.AwaitTurn(seconds):
                await _within(turn, seconds)
            case wait_steps.AwaitCall(seconds):
                await self._await_call(waiter, seconds)
            case wait_steps.Sleep(seconds):
                await asyncio.sleep(seconds)
        return None

    async def _ask_and_enqueue(self, asking: Asking, counter: bytes, waiters: Sequence[Waiter]) -> Asked:
        """Both in one turn of the loop, so that they leave in one write and the first reply is that of the queue.

        It is not waited for: cancelled then, the caller would keep what it was charged.
        """
        enqueueing = asyncio.ensure_future(self._enqueue(counter, waiters))
        try:
            decision = await self._ask(asking)
            return Asked(decision, enqueueing.result() if enqueueing.done() else None)
        finally:
            enqueueing.cancel()  # where the caller has gone away, its ticket must not be added later

    async def _ask(self, asking: Asking) -> Decision:
        """Check, and charge; where the caller goes away meanwhile, what was charged is refunded."""
        asked = asyncio.ensure_future(asking.check(dry_run=False))
        try:
            return await asyncio.shield(asked)
        except asyncio.CancelledError:
            self._in_background(self._undo(asked, asking))
            raise

    @staticmethod
    async def _undo(asked: asyncio.Future[Decision], asking: Asking) -> None:
        try:
            decision = await asked
        except LimiterUnavailable as error:
            asking.lost(error)
            return
        if decision.allowed:
            await asking.refund(decision)

    async def _occupied(self, counters: Sequence[bytes]) -> bytes | None:
        here = self._queues.occupied(counters)
        if here is not None or not counters:
            return here
        try:
            replies = await self._connection.send(
                [pack(("EXISTS", queue_keys(self._keys, one)[0])) for one in counters]
            )
        except LimiterUnavailable:
            return None  # the check itself is answered by the policies' own rules, or says so
        return next((counter for counter, reply in zip(counters, replies, strict=True) if reply == 1), None)

    async def _enqueue(self, counter: bytes, waiters: Sequence[Waiter]) -> Enqueued | None:
        now = b"" if self._clock is None else b"%d" % self._clock()
        args: list[bytes | str] = [now, b"%d" % round(LEASE * 1e6)]
        for waiter in waiters:
            args += [waiter.ticket, "" if waiter.position is None else str(waiter.position)]
        try:
            return Enqueued.of_reply(
                await self._connection.run(Call(self._enqueue_script, queue_keys(self._keys, counter), args))
            )
        except LimiterUnavailable:
            return None

    async def _dequeue(self, counter: bytes, ticket: str) -> None:
        try:
            first = await self._connection.run(Call(self._dequeue_script, queue_keys(self._keys, counter), [ticket]))
            if first is not None:
                await self._connection.send(call_commands(self._keys, first.decode()))
        except LimiterUnavailable:
            return  # the ticket expires

    async def _await_call(self, waiter: Waiter, seconds: float) -> None:
        try:
            possible = await self._connection.listen(turn_key(self._keys, waiter.ticket), seconds)
        except LimiterUnavailable:
            possible = False  # the next renewal notices, and continues alone
        if not possible:
            await asyncio.sleep(min(seconds, RENEWAL_INTERVAL))

    def _in_background(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


async def _within(event: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return
