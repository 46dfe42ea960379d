"""Blocks of units that a client takes ahead and spends in its own memory: ordinary charges, made once for many."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace

from quotas.engine.limits import prepaid as engine
from quotas.engine.types import Decision, Limit, Settlement
from quotas.errors import QuotaError
from quotas.runtime.connection import limiter
from quotas.services.limits import Check, settle_or_later

UNLIMITED = "~"
"""How the id of a block begins that no limit was charged for: nothing is kept of it."""


class NotDivisible(QuotaError):
    """A concurrency policy applies; what is in flight can't be charged ahead."""


@dataclass(frozen=True, slots=True)
class Block:
    """`units` are 0 where the decision is a denial; else they may be spent for `expires_in` seconds, and `id` returns
    the rest."""

    units: int
    expires_in: float
    decision: Decision
    id: str = ""


def limits_of(question: Check, unit: str) -> list[Limit]:
    """The limits that apply to one unit. Raises `NotDivisible`, and what `Check.limits` raises."""
    limits = replace(question, cost={"requests": 0, unit: 1}).limits()
    for limit in limits:
        if limit.algorithm == "concurrency" and limit.limit is not None:
            raise NotDivisible(limit.name)
    return [limit for limit in limits if limit.cost]


def take(question: Check, unit: str, units: int, ttl: float) -> Block:
    """Charge `units` ahead; near a limit fewer, but at least 1. Raises `NotDivisible`, `LimiterUnavailable`."""
    limits = limits_of(question, unit)
    got, decision = engine.take(limiter(), limits, units)
    if not got:
        return Block(0, 0.0, decision)
    # A shadow policy shortens nothing: it may not even have been charged.
    limiting = [state for state in decision.limits if state.remaining is not None and state.mode != "shadow"]
    lives = [engine.validity(state, state.algorithm) for state in limiting]
    name = decision.reservation or UNLIMITED + secrets.token_urlsafe(15)
    return Block(got, max(min([ttl, *lives]), 0.0), decision, name)


def refund_unspent(lease: str, unit_spent: dict[str, int]) -> Settlement | None:
    """Refund what was not spent, to the window that it came from; None: unknown or expired."""
    if lease.startswith(UNLIMITED):
        return Settlement(lease, unit_spent, {})
    return limiter().settle(lease, unit_spent)


class PolicyLease(engine.PrepaidLease):
    """A lease of this process that resolves anew which limits apply whenever it takes a block."""

    def __init__(self, question: Check, unit: str, units: int, ttl: float) -> None:
        super().__init__(limiter(), limits_of(question, unit), units=units, ttl=ttl)
        self._question, self._unit = question, unit

    def _refund(self, reservation: str, spent: dict[str, int]) -> None:
        settle_or_later(reservation, spent)

    def _renew(self, units: int) -> Decision:
        self._refund_unspent()
        self._limits = limits_of(self._question, self._unit)
        return super()._renew(units)
