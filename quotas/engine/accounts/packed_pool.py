"""What of a pool travels to the scripts: keys, specs and figures, packed once per pool and not once per call."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from quotas.engine.dialects import resources
from quotas.engine.keys import Keys, plain, subject
from quotas.engine.limits import codec
from quotas.engine.priorities import is_paused
from quotas.engine.redis.scripts import bulk
from quotas.engine.types import AccountSpec, AdmitRequest, Limit, PoolSpec

STRATEGIES = {
    name: number
    for number, name in enumerate(
        ("round_robin", "health", "least_recently_used", "weighted_random", "most_headroom"), start=1
    )
}
SAMPLED_ABOVE = 64
"""Pools of more accounts than this choose among a random sample."""
TURNS_ABOVE = 128
"""The same for `round_robin`: turns are even to one only where everybody is looked at."""
_FIGURES = struct.Struct("<dddddddddd")
_ACCOUNT = struct.Struct("<dB")


@dataclass(frozen=True, slots=True)
class AccountKeys:
    """One account's keys: its state, and a counter for each template of scope `account`."""

    account: AccountSpec
    state: bytes
    counters: tuple[bytes, ...]


class PackedPool:
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
        self._asked: dict[tuple[object, ...], PackedDemand] = {}
        self._settling: dict[bytes, tuple[int, bytes]] = {}
        self.state = pool_state_key(keys, pool.id)
        self.statistics = keys.key("a", "n", pool.id)
        self.accounts = tuple(
            AccountKeys(
                account,
                account_state_key(keys, account.id),
                tuple(keys.counter_of(limit, subject(limit.partition, account.id)[0]) for limit in self.own),
            )
            for account in pool.accounts
        )
        most = TURNS_ABOVE if pool.strategy == "round_robin" else SAMPLED_ABOVE
        self.sampled = len(self.accounts) > most
        self.by_suffix = {plain(account.id): account for account in pool.accounts}
        self.key_count = len(self.accounts) * (1 + len(self.own))
        self.packed_keys = b"".join(bulk(key) for one in self.accounts for key in (one.state, *one.counters))
        self.packed_head = bulk(self.state) + bulk(self.statistics)
        self.packed_accounts = pack_accounts(self.accounts)
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

    def asked(self, request: AdmitRequest, now: int) -> PackedDemand:
        """The demand of a call of this cost, priority and key; kept where it does not depend on the time or the key."""
        early = waits_early(self.pool, request.priority)
        templates = self.templates(request.key)
        if templates is not self.own or self._moves:
            return PackedDemand(self, templates, costs_of(request), early, now, request.model)
        kind = (early, request.model, *request.cost.items())
        known = self._asked.get(kind)
        if known is None:
            if len(self._asked) > 4096:
                self._asked.clear()
            known = self._asked[kind] = PackedDemand(self, templates, costs_of(request), early, now, request.model)
        return known

    def known(self, request: AdmitRequest) -> PackedDemand | None:
        """The demand of a call without a key, if it is kept already."""
        return self._asked.get((waits_early(self.pool, request.priority), request.model, *request.cost.items()))

    def settling(self, one: AccountKeys) -> tuple[int, bytes]:
        """How many counters apply to a call without a key, and these as they are sent."""
        known = self._settling.get(one.state)
        if known is None:
            known = self._settling[one.state] = (len(one.counters), b"".join(map(bulk, one.counters)))
        return known

    def templates(self, key: str) -> tuple[Limit, ...]:
        """The templates that apply to a call with this key (empty: none)."""
        if not key or not self.per_key:
            return self.own
        return self.own + tuple(limit for limit in self.per_key if holds_for(limit, key))


class PackedDemand:
    """What one kind of call demands of a pool's accounts, packed. `args` are ARGV 6 to 10 of acquire.lua."""

    __slots__ = ("args", "around", "packed", "specs", "templates")

    def __init__(
        self,
        plan: PackedPool,
        templates: tuple[Limit, ...],
        costs: dict[str, int],
        early: bool,
        now: int,
        model: str = "",
    ) -> None:
        pool = plan.pool
        threshold = pool.pause_at if early and pool.pause_at is not None else 1.0
        resource = model or resources.default_of(pool.dialect)
        units = [("k:" if limit.scope == "custom" else "") + limit.unit for limit in templates]
        self.templates = templates
        self.specs = specs(templates, costs, now)
        self.args: Sequence[bytes] = (
            early_specs(templates, costs, threshold, now) if early else b"",
            plan.figures,
            plan.packed_accounts,
            b"\x93" + _array([_text(unit) for unit in units]) + _map(costs) + _text(resource),
            codec.DOUBLE.pack(threshold),
        )
        self.packed = b"".join(map(bulk, self.args))
        self.around: tuple[bytes, bytes, bytes] | None = None
        """A whole admission but for its lease: what is sent before, between and after the two copies of it."""

    def packed_for(self, accounts: Sequence[AccountKeys]) -> bytes:
        """The same arguments for some of the pool's accounts."""
        early, figures, _, names, threshold = self.args
        return b"".join(map(bulk, (early, figures, pack_accounts(accounts), names, threshold)))


def _text(text: str) -> bytes:
    """A string in msgpack."""
    data = text.encode("utf-8", "surrogatepass")
    return b"\xda" + len(data).to_bytes(2, "big") + data


def _array(items: Sequence[bytes]) -> bytes:
    return b"\xdc" + len(items).to_bytes(2, "big") + b"".join(items)


def _map(costs: dict[str, int]) -> bytes:
    pairs = [_text(unit) + b"\xcb" + struct.pack(">d", cost) for unit, cost in costs.items()]
    return b"\xde" + len(pairs).to_bytes(2, "big") + b"".join(pairs)


def pool_state_key(keys: Keys, pool_id: str) -> bytes:
    """Where a pool's live state is."""
    return keys.key("a", "p", pool_id)


def account_state_key(keys: Keys, account_id: str) -> bytes:
    """Where an account's live state is."""
    return keys.key("a", "s", account_id)


def pack_accounts(accounts: Sequence[AccountKeys]) -> bytes:
    """Weight and whether it is enabled, for each; nothing where all are enabled and weigh 1."""
    if all(one.account.enabled and one.account.weight == 1 for one in accounts):
        return b""
    return b"".join([_ACCOUNT.pack(one.account.weight, one.account.enabled) for one in accounts])


def holds_for(limit: Limit, key: str) -> bool:
    """Whether a template per key applies to this one."""
    patterns = [pattern.strip() for pattern in limit.subject.split(",") if pattern.strip()]
    return not patterns or any(fnmatchcase(key, pattern) for pattern in patterns)


def costs_of(request: AdmitRequest) -> dict[str, int]:
    """What the call demands of an account: `requests` counts 1 unless given."""
    return {"requests": 1, **request.cost}


def specs(templates: tuple[Limit, ...], costs: dict[str, int], now: int) -> bytes:
    """The packed specs of the templates at these costs."""
    return b"".join([codec.pack_spec(_at(limit, costs), now) for limit in templates])


def early_specs(templates: tuple[Limit, ...], costs: dict[str, int], share: float, now: int) -> bytes:
    """The same for a priority that waits when `share` of an account's limits is used; keys' limits stay whole.

    A bucket keeps its refill and gets a smaller capacity. A cost above that passes when the bucket is nearly full.
    """
    return b"".join([codec.pack_spec(_early(_at(limit, costs), share), now) for limit in templates])


def waits_early(pool: PoolSpec, priority: int) -> bool:
    """Whether a call of this priority (0 first, 9 last) waits from the pool's pause threshold on."""
    if pool.pause_at is None or pool.pause_at >= 1:
        return False
    return is_paused(pool.pause, priority)


def _at(limit: Limit, costs: dict[str, int]) -> Limit:
    cost = 1 if limit.algorithm == "concurrency" else costs.get(limit.unit, 0)
    return limit if limit.cost == cost else replace(limit, cost=cost)


def _early(limit: Limit, share: float) -> Limit:
    whole = codec.capacity(limit)
    if limit.scope == "custom" or limit.algorithm == "concurrency" or not whole:
        return limit
    reduced = max(1, int(whole * share))
    cost = min(limit.cost, reduced)
    if limit.algorithm == "token_bucket":
        return replace(limit, burst=reduced, cost=cost)
    return replace(limit, limit=reduced, cost=cost)
