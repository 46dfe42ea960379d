"""What of a pool travels to the scripts: keys, specs and figures, packed once per pool and not once per call."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from . import wire
from .keys import Keys, plain, subject
from .types import AccountSpec, AdmitRequest, Limit, PoolSpec

STRATEGIES = {
    name: number
    for number, name in enumerate(
        ("round_robin", "health", "least_recently_used", "weighted_random", "most_headroom"), start=1
    )
}
_FIGURES = struct.Struct("<dddddddddd")
_ACCOUNT = struct.Struct("<dB")


@dataclass(frozen=True, slots=True)
class AccountKeys:
    """One account's keys: its state and calls in flight, and a counter for each template of scope `account`."""

    account: AccountSpec
    state: bytes
    flight: bytes
    counters: tuple[bytes, ...]


class PoolPlan:
    """A pool, prepared. Raises ValueError for what no pool can be."""

    def __init__(self, pool: PoolSpec, keys: Keys) -> None:
        if pool.strategy not in STRATEGIES:
            raise ValueError(f"no strategy {pool.strategy!r}")
        self.pool = pool
        self.strategy = STRATEGIES[pool.strategy]
        limits = [limit for limit in pool.limits if limit.limit is not None]
        self.own = tuple(limit for limit in limits if limit.scope != "custom")
        self.per_key = tuple(limit for limit in limits if limit.scope == "custom")
        self._moves = any(limit.algorithm == "calendar" for limit in self.own)
        self._packed: dict[tuple[tuple[str, int], ...], bytes] = {}
        self.state = keys.key("a", "p", pool.id)
        self.statistics = keys.key("a", "n", pool.id)
        self.accounts = tuple(
            AccountKeys(
                account,
                account_state_key(keys, account.id),
                keys.key("a", "f", account.id),
                tuple(keys.counter_of(limit, subject(limit.partition, account.id)[0]) for limit in self.own),
            )
            for account in pool.accounts
        )
        self.by_suffix = {plain(account.id): account for account in pool.accounts}
        self.flat = [key for one in self.accounts for key in (one.state, one.flight, *one.counters)]
        self.packed_accounts = b"".join(pack_account(one) for one in self.accounts)
        concurrency = pool.concurrency
        self.initial = -1.0 if concurrency is None else float(concurrency.initial)
        floor, ceiling = (0.0, 0.0) if concurrency is None else (concurrency.floor, concurrency.ceiling)
        breaker = pool.breaker
        self.figures = _FIGURES.pack(
            pool.cooldown_default * 1e6,
            pool.cooldown_max * 1e6,
            breaker.failures,
            breaker.window * 1e6,
            breaker.open_for * 1e6,
            breaker.probes,
            floor,
            ceiling,
            self.initial,
            sum(1 for account in pool.accounts if account.enabled),
        )

    def specs(self, templates: tuple[Limit, ...], costs: dict[str, int], now: int) -> bytes:
        """The packed specs of the templates at these costs; kept where they don't depend on the time or a key."""
        if templates is not self.own or self._moves:
            return specs(templates, costs, now)
        asked = tuple(costs.items())
        packed = self._packed.get(asked)
        if packed is None:
            if len(self._packed) > 4096:
                self._packed.clear()
            packed = self._packed[asked] = specs(templates, costs, now)
        return packed

    def templates(self, key: str) -> tuple[Limit, ...]:
        """The templates that hold for a call with this key (empty: none)."""
        if not key or not self.per_key:
            return self.own
        return self.own + tuple(limit for limit in self.per_key if holds_for(limit, key))


def account_state_key(keys: Keys, account_id: str) -> bytes:
    """Where an account's live state is."""
    return keys.key("a", "s", account_id)


def pack_account(one: AccountKeys) -> bytes:
    """Weight and whether it is enabled."""
    return _ACCOUNT.pack(one.account.weight, one.account.enabled)


def holds_for(limit: Limit, key: str) -> bool:
    """Whether a template per key holds for this one."""
    patterns = [pattern.strip() for pattern in limit.subject.split(",") if pattern.strip()]
    return not patterns or any(fnmatchcase(key, pattern) for pattern in patterns)


def costs_of(request: AdmitRequest) -> dict[str, int]:
    """What the call asks of an account: `requests` counts 1 unless given."""
    return {"requests": 1, **request.cost}


def specs(templates: tuple[Limit, ...], costs: dict[str, int], now: int) -> bytes:
    """The packed specs of the templates at these costs."""
    return b"".join([wire.pack_spec(_at(limit, costs), now) for limit in templates])


def early_specs(templates: tuple[Limit, ...], costs: dict[str, int], share: float, now: int) -> bytes:
    """The same for a priority that waits when `share` of an account's limits is used; keys' limits stay whole.

    A bucket keeps its refill and gets a smaller capacity. A cost above that passes when the bucket is nearly full.
    """
    return b"".join([wire.pack_spec(_early(_at(limit, costs), share), now) for limit in templates])


def waits_early(pool: PoolSpec, priority: int) -> bool:
    """Whether a call of this priority (0 first, 9 last) waits from the pool's pause threshold on."""
    if pool.pause_at is None or pool.pause_at >= 1:
        return False
    first = {"low": 7, "normal": 4, "all": 0}.get(pool.pause)
    return first is not None and priority >= first


def _at(limit: Limit, costs: dict[str, int]) -> Limit:
    cost = 1 if limit.algorithm == "concurrency" else costs.get(limit.unit, 0)
    return limit if limit.cost == cost else replace(limit, cost=cost)


def _early(limit: Limit, share: float) -> Limit:
    whole = wire.capacity(limit)
    if limit.scope == "custom" or limit.algorithm == "concurrency" or not whole:
        return limit
    reduced = max(1, int(whole * share))
    cost = min(limit.cost, reduced)
    if limit.algorithm == "token_bucket":
        return replace(limit, burst=reduced, cost=cost)
    return replace(limit, limit=reduced, cost=cost)
