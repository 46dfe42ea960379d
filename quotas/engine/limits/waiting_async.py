"""Waiting for capacity on an event loop: as `waiting`, in the same lines, without a thread for each waiter.

A waiter is a coroutine. Where its caller goes away it is cancelled: it leaves the line, and a charge that was on its way
then is refunded. As in `waiting`, only the first waiter of a line asks; of this loop's waiters in one line only the first
one is_head for all.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from quotas.engine.errors import LimiterUnavailable
from quotas.engine.keys import Keys
from quotas.engine.limits.wait_queue import LEASE, call_commands, line_keys, turn_key
from quotas.engine.limits.waiting import EARLIER, LONGEST_SLEEP, binding_of, by_slots, counters_of, is_worth_it
from quotas.engine.redis.scripts import Call, load, pack
from quotas.engine.types import Decision, Limit

LISTEN = 0.05
"""Seconds between two looks, while a ticket of another process is first, where no blocking read is to be had."""


class Asking(Protocol):
    """What a line needs of a limiter, each awaited. Raises LimiterUnavailable as the limiter does."""

    @property
    def limits(self) -> Sequence[Limit]:
        """The limits of the last question; before the first one, those in force."""

    async def check(self, *, dry_run: bool) -> Decision:
        """Ask once, by the limits that are in force now; `dry_run` charges nothing."""

    async def refund(self, decision: Decision) -> None:
        """Give back what an allowed decision has charged: its caller is gone."""


class Way(Protocol):
    """The connection to the server. Each method raises LimiterUnavailable."""

    async def run(self, call: Call) -> Any:
        """The reply to a script."""

    async def send(self, commands: Sequence[bytes]) -> list[Any]:
        """The replies to packed commands."""

    async def listen(self, key: bytes, seconds: float) -> bool:
        """Wait until something is pushed to a list, at most so long; False where this connection can't wait."""


@dataclass(slots=True, eq=False)
class _Waiter:
    """One waiting check."""

    ticket: str = field(default_factory=lambda: secrets.token_urlsafe(9))
    place: int | None = None
    """The moment of arrival as the server counts it; None where the server has not been reached."""
    turn: asyncio.Event = field(default_factory=asyncio.Event)


def _place(waiter: _Waiter) -> float:
    return float("inf") if waiter.place is None else waiter.place


class AsyncWaitingLine:
    """Waiting checks of one event loop, in one line with those of all threads and processes."""

    def __init__(self, way: Way, keys: Keys, *, clock: Callable[[], int] | None = None) -> None:
        self._way = way
        self._keys = keys
        self._clock = clock
        self._lines: dict[bytes, list[_Waiter]] = {}
        self._enqueue_script, self._dequeue_script = load("wait_enqueue"), load("wait_dequeue")
        self._leaving: set[asyncio.Future[None]] = set()

    async def check(self, asking: Asking, *, max_wait: float) -> Decision:
        """As WaitingLine.check. Cancelled, it leaves its queue and charges nothing."""
        deadline = time.monotonic() + max_wait
        line = await self._occupied(list(counters_of(asking.limits, self._keys)))
        decision = await (self._ask(asking) if line is None else asking.check(dry_run=True))
        waiter = _Waiter()
        while is_worth_it(decision, deadline) or (line is not None and decision.allowed):
            if line is None:
                line = self._binding(decision, asking)
                if line is None:
                    break
            decision, done = await self._wait_in_line(line, waiter, deadline, asking)
            if done:
                break
            line = None
        return decision

    def waiting(self) -> int:
        """How many wait here."""
        return sum(map(len, self._lines.values()))

    async def _ask(self, asking: Asking) -> Decision:
        """Ask, and charge; where the caller goes away meanwhile, what was charged is refunded."""
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
        except LimiterUnavailable:
            return  # nothing is known to be charged
        if decision.allowed:
            await asking.refund(decision)

    # -- one line ------------------------------------------------------------------------------------------------

    async def _wait_in_line(
        self, line: bytes, waiter: _Waiter, deadline: float, asking: Asking
    ) -> tuple[Decision, bool]:
        """Wait in one line: (the answer, whether it is final); not final where another counter refuses now."""
        waiting = self._lines.setdefault(line, [])
        waiting.append(waiter)
        try:
            first = await self._renew(line, [waiter])
            while True:
                left = deadline - time.monotonic()
                if left <= 0:
                    return await self._ask(asking), True
                if waiting[0] is not waiter:
                    waiter.turn.clear()
                    await _within(waiter.turn, left)
                    continue
                if first not in ("", waiter.ticket):
                    await self._wait_for_turn(waiter, min(left, LONGEST_SLEEP))
                    first = await self._renew(line, waiting)
                    continue
                decision = await self._ask(asking)
                if not is_worth_it(decision, deadline):
                    return decision, True
                if self._binding(decision, asking) not in (line, None):
                    return decision, False
                assert decision.retry_after is not None
                await asyncio.sleep(min(decision.retry_after, EARLIER if by_slots(decision) else LONGEST_SLEEP))
                first = await self._renew(line, waiting)
        finally:
            self._leave(line, waiter)

    def _binding(self, denial: Decision, asking: Asking) -> bytes | None:
        return binding_of(denial, counters_of(asking.limits, self._keys))

    async def _occupied(self, counters: list[bytes]) -> bytes | None:
        """The counter that others wait for already: a new waiter queues behind them."""
        here = next((counter for counter in counters if counter in self._lines), None)
        if here is not None or not counters:
            return here
        try:
            replies = await self._way.send([pack(("EXISTS", line_keys(self._keys, one)[0])) for one in counters])
        except LimiterUnavailable:
            return None  # the check itself is answered by the policies' own rules, or says so
        return next((counter for counter, reply in zip(counters, replies, strict=True) if reply == 1), None)

    async def _wait_for_turn(self, waiter: _Waiter, seconds: float) -> None:
        try:
            listened = await self._way.listen(turn_key(self._keys, waiter.ticket), seconds)
        except LimiterUnavailable:
            listened = False  # the next attempt notices, and continues alone
        if not listened:
            await asyncio.sleep(min(seconds, LISTEN))

    async def _renew(self, line: bytes, waiters: Sequence[_Waiter]) -> str:
        """Take or keep the places of these. Returns the ticket that is first; empty where the server is away."""
        standing = list(waiters)
        try:
            *places, first = await self._way.run(self._call(line, standing))
        except LimiterUnavailable:
            return ""
        for one, place in zip(standing, places, strict=True):
            one.place = int(place)
        here = self._lines[line]
        for gone in (one for one in standing if one not in here):
            self._in_background(self._give_up(line, gone.ticket))  # left while the server was asked
        here.sort(key=_place)
        if here:
            here[0].turn.set()
        return first.decode() if first is not None else ""

    def _call(self, line: bytes, waiters: Sequence[_Waiter]) -> Call:
        now = b"" if self._clock is None else b"%d" % self._clock()
        args: list[bytes | str] = [now, b"%d" % round(LEASE * 1e6)]
        for waiter in waiters:
            args += [waiter.ticket, "" if waiter.place is None else str(waiter.place)]
        return Call(self._enqueue_script, line_keys(self._keys, line), args)

    def _leave(self, line: bytes, waiter: _Waiter) -> None:
        waiting = self._lines[line]
        waiting.remove(waiter)
        if waiting:
            waiting[0].turn.set()
        else:
            del self._lines[line]
        self._in_background(self._give_up(line, waiter.ticket))

    async def _give_up(self, line: bytes, ticket: str) -> None:
        """Give a ticket up, and call the next one where it was the first."""
        try:
            first = await self._way.run(Call(self._dequeue_script, line_keys(self._keys, line), [ticket]))
            if first is not None:
                await self._way.send(call_commands(self._keys, first.decode()))
        except LimiterUnavailable:
            return  # the ticket ends by itself

    def _in_background(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)


async def _within(event: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return
