"""How limits travel to the scripts and decisions come back: the packed forms of lua/cells/cells.lua and lua/check.lua."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import fields
from functools import lru_cache
from math import gcd

from quotas.engine.costs import MAX_COST
from quotas.engine.limits.capacity import capacity_of
from quotas.engine.limits.periods import boundaries
from quotas.engine.types import ALGORITHMS, Decision, Limit, LimitState

DRY_RUN, BYPASS, RESERVE, TOKEN = 1, 2, 4, 8
DENIED, ALLOWED, STALE, CONFLICT = 0, 1, 2, 3

HEAD = struct.Struct("<BBdd")
SPEC = struct.Struct("<BBdddddd")
STATUS = struct.Struct("<Bd")
STATE = struct.Struct("<Bqqqq")
DOUBLE = struct.Struct("<d")
CODES = {name: number for number, name in enumerate(ALGORITHMS, 1)}
MICROSECONDS = 1_000_000


def whole_microseconds(seconds: float) -> int:
    return round(seconds * MICROSECONDS)


@lru_cache(maxsize=16384)
def _timed(
    algorithm: str, limit: int, cost: int, window: float, burst: int | None, mode: str, lease_ttl: float
) -> bytes:
    """The spec of every algorithm but calendar; it does not depend on time."""
    if not 0 <= cost <= MAX_COST or not 0 <= limit <= MAX_COST:
        raise ValueError(f"costs and limits are whole numbers from 0 to 2^53 - 1, not {cost!r} and {limit!r}")
    p1 = p2 = p3 = 0
    if algorithm == "concurrency":
        p1 = whole_microseconds(lease_ttl)
    else:
        p1 = whole_microseconds(window)
    if p1 <= 0:
        raise ValueError(f"a window is longer than 0 seconds, not {window!r}")
    if algorithm == "token_bucket":
        common = gcd(limit, p1)
        p1, p2, p3 = (limit if burst is None else burst), limit // common, p1 // common
    return SPEC.pack(CODES[algorithm], mode == "shadow", limit, cost, p1, p2, p3, 0)


def pack_spec(limit: Limit, now: int) -> bytes:
    """50 bytes for one limit that does limit. `now`: a guess at the server's time, for calendar boundaries."""
    if limit.algorithm == "calendar":
        if limit.limit is None or not 0 <= limit.cost <= MAX_COST or not 0 <= limit.limit <= MAX_COST:
            raise ValueError(f"costs and limits are whole numbers from 0 to 2^53 - 1, not {limit.cost!r}")
        around = boundaries(limit.period, limit.timezone, now)
        return SPEC.pack(CODES["calendar"], limit.mode == "shadow", limit.limit, limit.cost, *around)
    assert limit.limit is not None
    return _timed(limit.algorithm, limit.limit, limit.cost, limit.window, limit.burst, limit.mode, limit.lease_ttl)


def present(limit: Limit, now: int) -> tuple[int, int]:
    """Begin and end of a calendar limit's present period, in microseconds."""
    return boundaries(limit.period, limit.timezone, now)[1:3]


def capacity(limit: Limit) -> int | None:
    """The most that is ever available at once; None where nothing limits."""
    return capacity_of(limit.algorithm, limit.limit, limit.burst)


def window_of(limit: Limit, now: int) -> float:
    """The effective window in seconds, for the `RateLimit-Policy` field."""
    if limit.algorithm == "calendar":
        _, start, stop, _ = boundaries(limit.period, limit.timezone, now)
        return (stop - start) / MICROSECONDS
    return 0.0 if limit.algorithm == "concurrency" else limit.window


def unlimited(limit: Limit) -> LimitState:
    return LimitState(
        policy=limit.name,
        scope=limit.scope,
        key=limit.subject,
        unit=limit.unit,
        algorithm=limit.algorithm,
        limit=None,
        remaining=None,
        reset_after=0.0,
        mode=limit.mode,
        allowed=True,
        partition=limit.partition,
        window=limit.window,
    )


class _Decision:
    """A Decision being filled in, as `_State` is a LimitState."""

    __slots__ = tuple(field.name for field in fields(Decision))


class _State:
    """A LimitState being filled in. A frozen dataclass pays for each field with a call; this one, of the same layout,
    does not, and becomes a LimitState when it is done: a third of the time of every answer."""

    __slots__ = tuple(field.name for field in fields(LimitState))

    def __init__(
        self, limit: Limit, remaining: int, reset: float, allowed: bool, retry: float | None, used: int, window: float
    ) -> None:
        self.policy = limit.name
        self.scope = limit.scope
        self.key = limit.subject
        self.unit = limit.unit
        self.algorithm = limit.algorithm
        self.limit = limit.limit
        self.remaining = remaining
        self.reset_after = reset
        self.mode = limit.mode
        self.allowed = allowed
        self.retry_after = retry
        self.used = used
        self.partition = limit.partition
        self.window = window
        self.__class__ = LimitState  # type: ignore[assignment]


def state_of(limit: Limit, now: int, allowed: bool, used: int, remaining: int, retry: int, reset: int) -> LimitState:
    """A LimitState from a cell's figures; `retry` and `reset` in microseconds, retry -1 for never."""
    algorithm = limit.algorithm
    return _State(  # type: ignore[return-value]
        limit,
        remaining,
        reset / MICROSECONDS,
        allowed,
        retry / MICROSECONDS if retry >= 0 else None,
        used,
        limit.window if algorithm != "calendar" and algorithm != "concurrency" else window_of(limit, now),
    )


def states_of(limits: Sequence[Limit], reply: bytes, now: int) -> tuple[list[LimitState], list[bool]]:
    """What the scripts' answer says of each limit that limits, and which costs are impossible."""
    states: list[LimitState] = []
    impossible: list[bool] = []
    figures = STATE.iter_unpack(memoryview(reply)[STATUS.size :])
    for limit in limits:
        if limit.limit is None:
            states.append(unlimited(limit))
            impossible.append(False)
        else:
            bits, used, remaining, retry, reset = next(figures)
            states.append(state_of(limit, now, bits == 1, used, remaining, retry, reset))
            impossible.append(bits > 1)
    return states, impossible


def decide(
    limits: Sequence[Limit],
    states: Sequence[LimitState],
    impossible: Sequence[bool],
    allowed: bool,
    *,
    bypassed: bool = False,
    degraded: bool = False,
    reservation: str | None = None,
    replayed: bool = False,
) -> Decision:
    """Join what the limits said: which one binds, and how long the request has to wait.

    Denied, the enforced limit with the longest wait binds (one that waiting doesn't help beats any other, and an
    impossible cost beats that); allowed, the enforced limit with the least share of its capacity left.
    """
    binding: str | None = None
    if allowed:
        least = 2.0
        for limit, state in zip(limits, states, strict=True):
            if state.remaining is None or state.mode == "shadow":
                continue
            whole = limit.limit
            if limit.algorithm == "token_bucket":
                whole = capacity(limit)
            share = state.remaining / (whole or 1)
            if share < least:
                least, binding = share, state.policy
        done = _Decision()
        done.allowed, done.limits, done.retry_after, done.binding = True, tuple(states), 0.0, binding  # type: ignore[attr-defined]
        done.degraded, done.bypassed, done.reservation = degraded, bypassed, reservation  # type: ignore[attr-defined]
        done.impossible, done.replayed = False, replayed  # type: ignore[attr-defined]
        done.__class__ = Decision  # type: ignore[assignment]
        return done  # type: ignore[return-value]
    wait: float | None = 0.0
    rank = -1.0
    never = False
    for state, is_impossible in zip(states, impossible, strict=True):
        if state.allowed or state.mode == "shadow":
            continue
        if is_impossible:
            never = True
        worth = float("inf") if is_impossible else (1e300 if state.retry_after is None else state.retry_after)
        if worth > rank:
            rank, binding, wait = worth, state.policy, state.retry_after
    return Decision(False, tuple(states), wait, binding, degraded, bypassed, None, never, replayed)
