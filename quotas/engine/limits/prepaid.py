"""Prepaid leases: blocks of units that are charged ahead and spent in memory, at memory speed.

A block is an ordinary charge, so the sum that is spent by all processes can't exceed a limit, and a process that dies
loses its block and no more. For the limit to apply in true windows too, a block is only good for as long as its charge
and its spending count alike: to the end of the window (fixed_window, calendar, sliding_window_counter) or of the
sub-bucket (sliding_window: 1/60 of the window) that was charged, and never longer than `ttl`. A token bucket has no
such boundary: what it admits may be spent up to `ttl` later. What is left is refunded to the window that it came from.

The size of a block follows the observed rate, never takes more than 1/64 of what is left, and so shrinks to the
requested size near the limit.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from quotas.engine.types import Decision, Limit, LimitState, Settlement

SHARE = 64
HORIZON = 0.5
"""Seconds of observed demand that one block is to cover."""
ALLOWED = Decision(True)


class Charging(Protocol):
    """What a lease needs of a limiter: limiter.Limiter, fallback.ResilientLimiter or reference.ReferenceLimiter."""

    def check(self, limits: Sequence[Limit], *, reserve: bool | None = None) -> Decision: ...

    def settle(self, reservation: str, actual: dict[str, int] | None = None) -> Settlement | None: ...


def times(limits: Sequence[Limit], units: int) -> list[Limit]:
    """The limits with their cost for that many units at once."""
    return [replace(limit, cost=limit.cost * units) for limit in limits]


def take(limiter: Charging, limits: Sequence[Limit], wanted: int, least: int = 1) -> tuple[int, Decision]:
    """Charge `wanted` units, or as many as there are if fewer, but not fewer than `least`: (units, decision).

    0 units come with the denial. The decision's reservation is to be settled with what was spent.
    """
    decision = limiter.check(times(limits, wanted), reserve=True)
    if decision or wanted <= least:
        return (wanted if decision else 0), decision
    costs = {(limit.name, limit.partition): limit.cost for limit in limits}
    left = [
        (state.remaining or 0) // cost
        for state in decision.limits
        if state.remaining is not None and state.mode != "shadow" and (cost := costs[state.policy, state.partition])
    ]
    units = max(least, min(left, default=least))
    decision = limiter.check(times(limits, units), reserve=True)
    if not decision and units > least:
        units = least
        decision = limiter.check(times(limits, units), reserve=True)
    return (units if decision else 0), decision


def validity(state: LimitState, algorithm: str) -> float:
    """Seconds for which spending counts in the same window as the charge."""
    if algorithm in ("fixed_window", "calendar"):
        return state.reset_after
    if algorithm == "sliding_window_counter":
        return state.reset_after - state.window
    if algorithm == "sliding_window":
        return state.reset_after - 60 * -(-round(state.window * 1e6) // 60) / 1e6
    return float("inf")


class PrepaidLease:
    """Spend units of one request's limits from memory; threads may share it.

        with PrepaidLease(limiter, limits, units=500) as lease:
            if lease.spend(): ...

    `limits`: with the cost of one unit each. `units`: the most that is charged ahead. `ttl`: the longest that a block
    is spent from, in seconds.
    """

    def __init__(self, limiter: Charging, limits: Sequence[Limit], *, units: int = 100, ttl: float = 10.0) -> None:
        if any(limit.algorithm == "concurrency" for limit in limits):
            raise ValueError("concurrency can't be charged ahead")
        if units < 1:
            raise ValueError(f"a block is at least 1 unit, not {units}")
        self._limiter = limiter
        self._limits = list(limits)
        self._units = units
        self._ttl = ttl
        self._lock = threading.Lock()
        self._left = 0
        self._size = 0
        self._taken = 0.0
        self._ends = 0.0
        self._reservation: str | None = None
        self._room = units * SHARE

    def spend(self, units: int = 1) -> Decision:
        """Spend units if they are in the block, else charge a new one. A denial is the limiter's own decision."""
        if units < 0:
            raise ValueError(f"units are at least 0, not {units}")
        with self._lock:
            if units <= self._left and time.monotonic() < self._ends:
                self._left -= units
                return ALLOWED
            return self._renew(units)

    def _renew(self, units: int) -> Decision:
        now = time.monotonic()
        rate = (self._size - self._left) / max(now - self._taken, 1e-6) if self._size else 16 / HORIZON
        self._refund_unspent()
        ahead = min(self._units, int(rate * HORIZON), self._room // SHARE)
        start = time.monotonic()  # before the request: the round trip shortens the block's life
        got, decision = take(self._limiter, self._limits, max(units, ahead, 1), max(units, 1))
        if not got:
            self._room = 0
            return decision
        self._reservation = decision.reservation
        self._size, self._left, self._taken = got, got - units, start
        enforced = [state for state in decision.limits if state.remaining is not None and state.mode != "shadow"]
        life = min((validity(state, state.algorithm) for state in enforced), default=self._ttl)
        self._ends = start + min(self._ttl, life)
        costs = {limit.name: max(limit.cost, 1) for limit in self._limits}
        self._room = min(
            ((state.remaining or 0) // costs[state.policy] for state in enforced), default=self._units * SHARE
        )
        return ALLOWED

    def _refund_unspent(self) -> None:
        reservation, self._reservation = self._reservation, None
        if reservation is not None and self._left:
            spent = self._size - self._left
            self._refund(reservation, {limit.unit: limit.cost * spent for limit in self._limits})
        self._left = self._size = 0

    def _refund(self, reservation: str, spent: dict[str, int]) -> None:
        self._limiter.settle(reservation, spent)

    def close(self) -> None:
        """Refund what was not spent. The lease may be used again and takes a new block then."""
        with self._lock:
            self._refund_unspent()

    def __enter__(self) -> PrepaidLease:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
