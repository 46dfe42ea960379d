"""The steps of a check that waits: `waiting` yields them, and a thread or an event loop performs them and sends the reply back."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from quotas.engine.limits.wait_queue import Enqueued
from quotas.engine.types import Decision


class Turn(Protocol):
    """An event: `threading.Event` or `asyncio.Event`."""

    def set(self) -> None: ...

    def clear(self) -> None: ...


@dataclass(slots=True, eq=False)
class Waiter:
    """One waiting check."""

    turn: Turn
    """Set when it may have become the first of its process's waiters."""
    ticket: str = field(default_factory=lambda: secrets.token_urlsafe(9))
    position: int | None = None
    """The moment of arrival as the server counts it; None where the server has not been reached."""
    counter: bytes | None = None
    """The counter in whose queue it is."""
    behind: str = ""
    """The ticket directly behind its own, as the server has last answered when its own was first; else empty."""
    is_called: bool = False
    """Whether the ticket directly before its own was of this process, and has left: its own is first now."""


@dataclass(frozen=True, slots=True)
class Occupied:
    """Is another waiter in the queue of one of these counters? Reply: the first such counter, or None."""

    counters: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Ask:
    """Call the limiter with the limits in force now. Reply: its decision.

    Where it raises LimiterUnavailable the driver throws the error into the steps, which may yield the same again: the
    server may have run the first call, so all calls of one check have one idempotency token.
    """

    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Enqueue:
    """Add or renew tickets. Reply: `Enqueued`; None where the server is unavailable."""

    counter: bytes
    waiters: Sequence[Waiter]


@dataclass(frozen=True, slots=True)
class AskAndEnqueue:
    """Both at the same time. Reply: `Asked`. Errors as for `Ask`."""

    counter: bytes
    waiters: Sequence[Waiter]


@dataclass(frozen=True, slots=True)
class Asked:
    """A decision, and the reply to `Enqueue`."""

    decision: Decision
    enqueued: Enqueued | None


@dataclass(frozen=True, slots=True)
class Dequeue:
    """Remove a ticket, and call the next one if it was the first. While the server is unavailable it expires."""

    counter: bytes
    ticket: str


@dataclass(frozen=True, slots=True)
class AwaitTurn:
    """Wait until the waiter's `turn` is set, at most so long."""

    seconds: float


@dataclass(frozen=True, slots=True)
class AwaitCall:
    """Wait until the waiter's ticket is called, at most so long; where that is impossible, for `RENEWAL_INTERVAL`."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Sleep:
    seconds: float


Step = Occupied | Ask | Enqueue | AskAndEnqueue | Dequeue | AwaitTurn | AwaitCall | Sleep
Reply = Decision | bytes | Enqueued | Asked | None
