"""A queue of waiters that all processes share: tickets in order of arrival, one queue for each counter.

enqueue -> a position; renewed once a second together with the process's other tickets, else the ticket is dropped
dequeue -> the next ticket is called: its process sleeps in a blocking read until then
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import redis as redis_py

from quotas.engine.errors import LimiterUnavailable
from quotas.engine.keys import Keys
from quotas.engine.redis.scripts import load, pack
from quotas.engine.redis.transport import Transport, Wire

LEASE = 3.0
"""Seconds after which a ticket that is not renewed is dropped: how long a dead waiter can block the others."""
GRACE = 0.25
"""Seconds by which a blocking read may exceed its timeout."""


@dataclass(frozen=True, slots=True)
class Enqueued:
    """What the server answers to tickets that are added or renewed."""

    positions: Sequence[int]
    """The position of each ticket."""
    first: str
    """The ticket at the head of the queue."""
    second: str = ""
    """The ticket behind it; empty where there is none."""
    count: int = 0
    """How many tickets the queue has."""

    @classmethod
    def of_reply(cls, reply: Sequence[Any]) -> Enqueued:
        *positions, first, second, count = reply
        return cls([int(position) for position in positions], first.decode(), second.decode(), count)


Ask = Callable[[Callable[[Transport], Any]], Any]
"""Runs a function with the transport to the server. Raises LimiterUnavailable."""


def queue_keys(keys: Keys, counter: bytes) -> list[bytes]:
    """The keys of a queue: its tickets by their position, and by when they expire."""
    return [keys.key("w", counter.decode()), keys.key("w", counter.decode(), "e")]


def turn_key(keys: Keys, ticket: str) -> bytes:
    """The list that the owner of a ticket reads until it is called."""
    return keys.key("w", "t", ticket)


def call_commands(keys: Keys, ticket: str) -> list[bytes]:
    """The commands, packed, that call the owner of a ticket."""
    turn = turn_key(keys, ticket)
    return [pack(("RPUSH", turn, b"1")), pack(("PEXPIRE", turn, round(LEASE * 2000)))]


class WaitQueue:
    """Queues on one server. Safe under threads. Every method raises LimiterUnavailable."""

    def __init__(self, ask: Ask, keys: Keys, *, clock: Callable[[], int] | None = None) -> None:
        self._ask = ask
        self._keys = keys
        self._clock = clock
        self._enqueue = load("wait_enqueue")
        self._dequeue = load("wait_dequeue")

    def occupied(self, counters: Sequence[bytes]) -> bytes | None:
        """The first of these counters that somebody waits for."""
        commands = [pack(("EXISTS", queue_keys(self._keys, counter)[0])) for counter in counters]
        replies = self._ask(lambda transport: transport.exchange(b"".join(commands), len(commands)))
        return next((counter for counter, reply in zip(counters, replies, strict=True) if reply == 1), None)

    def enqueue(self, counter: bytes, tickets: Sequence[tuple[str, int | None]]) -> Enqueued:
        """Add or renew tickets."""
        now = b"" if self._clock is None else b"%d" % self._clock()
        args: list[bytes | str] = [now, b"%d" % round(LEASE * 1e6)]
        for ticket, place in tickets:
            args += [ticket, "" if place is None else str(place)]
        return Enqueued.of_reply(
            self._ask(lambda transport: transport.run(self._enqueue, queue_keys(self._keys, counter), args))
        )

    def dequeue(self, counter: bytes, ticket: str) -> None:
        """Remove a ticket, and call the next one if it was the first."""

        def act(transport: Transport) -> None:
            first = transport.run(self._dequeue, queue_keys(self._keys, counter), [ticket])
            if first is not None:
                transport.exchange(b"".join(call_commands(self._keys, first.decode())), 2)

        self._ask(act)

    def listener(self) -> TurnListener:
        """Waits until a ticket reaches the head of its queue."""
        return TurnListener(self._ask, lambda ticket: turn_key(self._keys, ticket))


class TurnListener:
    """One blocking read at a time, on a connection of its own. A context manager."""

    def __init__(self, ask: Ask, turn: Callable[[str], bytes]) -> None:
        self._ask = ask
        self._turn = turn
        self._wire: Wire | None = None
        self._seconds = 0.0

    def wait(self, ticket: str, seconds: float) -> bool:
        """Wait until the ticket is called, at most `seconds`. Raises LimiterUnavailable."""
        if self._wire is None or seconds > self._seconds:
            self.close()
            self._wire, self._seconds = self._ask(lambda transport: _open(transport, seconds)), seconds
        try:
            return self._wire.exchange(pack(("BLPOP", self._turn(ticket), f"{seconds:.3f}")), 1)[0] is not None
        except OSError as error:
            self.close()
            raise LimiterUnavailable(str(error) or type(error).__name__) from error

    def close(self) -> None:
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    def __enter__(self) -> TurnListener:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _open(transport: Transport, seconds: float) -> Wire:
    try:
        return transport.open(timeout=seconds + GRACE)
    except (OSError, redis_py.RedisError) as error:
        raise LimiterUnavailable(str(error)) from error
