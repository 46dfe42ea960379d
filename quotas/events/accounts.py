"""Accounts, their pools, and calls through the gateway."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from quotas.engine.frozen import quickly_made
from quotas.events.bus import Event


@dataclass(frozen=True, slots=True)
class AccountChanged(Event):
    """An account went from one state to another, as the API names them.

    A breaker opens (`open`), lets a probe out (`half_open`) and closes (`available`); a refused credential disables
    (`disabled`, `why` is `auth`): this is worth an alert, and is emitted once.
    """

    pool: str
    account: str
    before: str
    after: str
    why: str = ""
    until: float | None = None


@dataclass(frozen=True, slots=True)
class PoolLimited(Event):
    """All of a pool is limited: its accounts share a limit, or each of them has met its own. Emitted once per time.

    `account`: whose refusal was the last. `until`: seconds until the first of them is free, None where that is open.
    """

    pool: str
    account: str
    why: str = ""
    until: float | None = None


@dataclass(frozen=True, slots=True)
class ConcurrencyChanged(Event):
    """Adaptive concurrency moved: how many calls may be in flight on an account, before and after."""

    pool: str
    account: str
    before: int
    after: int
    why: str = ""


@dataclass(frozen=True, slots=True)
class PoolHealthMeasured(Event):
    """A pool's accounts by state, as words, and its lowest health score."""

    pool: str
    states: str
    lowest: float


@dataclass(frozen=True, slots=True)
class AccountActionIncomplete(Event):
    """An action on an account is in SQL, but not in Redis; `what`: what has to be done by hand."""

    account: str
    what: str
    error: str


@dataclass(frozen=True, slots=True)
class RedisStateRestored(Event):
    """Redis had lost its memory; accounts' states and the use of calendar quotas were restored from SQL."""

    accounts: int
    calendars: int


@quickly_made
@dataclass(frozen=True, slots=True)
class CallEnded(Event):
    """A call through the gateway ended or was refused; nothing of its body, query and credentials is in it.

    Emitted on an event loop for each call: a subscriber must not block. `at` is Unix time; times are in
    seconds; `status` is the answer's, None where its caller went away before one; `refusal` says why it was refused,
    `waited_for` what delayed its admission, in order.
    """

    call: str
    at: float
    pool: str
    method: str
    path: str
    model: str
    user: str
    actor: str
    account: str
    status: int | None
    outcome: str
    attempts: int
    waited: float
    seconds: float
    overhead: float
    first_byte: float | None
    is_stream: bool
    cost: Mapping[str, int]
    actual: Mapping[str, int]
    refusal: Mapping[str, Any] = field(default_factory=dict)
    waited_for: Sequence[str] = ()
    trace: str = ""
    """The trace id of the caller's `traceparent`; empty where there is none."""


@dataclass(frozen=True, slots=True)
class CallRejected(Event):
    """A request to the gateway was not even a call: no key, no such pool, a bad address. `pool`: where it is known."""

    pool: str
    slug: str
