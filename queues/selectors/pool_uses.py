"""The state of pools' accounts now, as a simulation begins with it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from queues.selectors.counter_uses import counter_key, read_uses
from queues.simulation.accounts import Account
from queues.simulation.counters import NOTHING, Bucket, Counter, Use, Window, counter_of
from quotas.engine.account_state import AccountState
from quotas.engine.learned import AccountQuota
from quotas.engine.types import Limit, PoolSpec
from quotas.runtime.connection import accounts

OTHER_CALL = 1.0
"""Seconds that a call in flight which is no job is expected to last, where the account's latency is not known."""


@dataclass(slots=True)
class PoolUse:
    """A pool with the state of its accounts and the use of their limits, by account and limit."""

    spec: PoolSpec
    states: list[AccountState]
    uses: dict[tuple[str, str], Use] = field(default_factory=dict)

    def accounts(self, now: float) -> list[Account]:
        """The pool's accounts, in its order. Calls in flight are counted as calls that are no jobs."""
        return [self._account(state, now) for state in self.states]

    def another(self, now: float) -> Account:
        """An account that the pool does not have, with the same limits and nothing used."""
        initial = self.spec.concurrency.initial if self.spec.concurrency is not None else None
        return Account(0.0, {limit.id: counter_of(limit, NOTHING, now) for limit in self.limits}, initial)

    @property
    def limits(self) -> list[Limit]:
        """Those that count all of an account's calls."""
        return [limit for limit in self.spec.limits if limit.scope != "custom" and limit.limit is not None]

    def _account(self, state: AccountState, now: float) -> Account:
        counters = {
            limit.id: counter_of(limit, self.uses.get((state.id, limit.id), NOTHING), now) for limit in self.limits
        }
        free_from = _free_from(state, now)
        units = {limit.unit for limit in self.limits}
        learned = []
        for unit, quota in state.learned.items():
            if quota.remaining == 0 and quota.reset_after:
                free_from = max(free_from, now + quota.reset_after)
            counter = _counter_of(quota, now)
            if unit not in units and counter is not None and quota.limit:
                learned.append((unit, counter, float(quota.limit)))
        others = [now + (state.latency or OTHER_CALL)] * state.in_flight
        return Account(free_from, counters, state.concurrency, 0, others, learned)


def read_pool_uses(specs: Iterable[PoolSpec], now: float) -> dict[str, PoolUse]:
    """By name. Raises `LimiterUnavailable`."""
    found = {spec.name: PoolUse(spec, accounts().states(spec)) for spec in specs}
    limits: dict[str, Limit] = {}
    places: dict[str, tuple[str, str, str]] = {}
    for name, use in found.items():
        for limit in use.limits:
            for state in use.states:
                own = replace(limit, subject=state.id)
                limits[counter_key(own)] = own
                places[counter_key(own)] = (name, state.id, limit.id)
    for key, used in read_uses(limits, now).items():
        name, account, limit_id = places[key]
        found[name].uses[account, limit_id] = used
    return found


def _free_from(state: AccountState, now: float) -> float:
    match state.state:
        case "disabled":
            return math.inf
        case "cooling_down" | "open":
            return now + (state.until or 0.0)
    return 0.0


def _counter_of(quota: AccountQuota, now: float) -> Counter | None:
    """The counter of a quota that the provider states; None where too little of it is known."""
    if not quota.limit or quota.remaining is None or not quota.window:
        return None
    used = float(max(quota.limit - quota.remaining, 0))
    window, reset_at = quota.window, now + (quota.reset_after or quota.window)
    use = Use(((reset_at, used),)) if used else NOTHING
    if quota.kind == "bucket":
        return Bucket(quota.limit / window, use, now)
    return Window(lambda at: reset_at + (math.floor((at - reset_at) / window) + 1) * window, window, use)
