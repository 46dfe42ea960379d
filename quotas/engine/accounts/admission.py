"""Packs an admission for the script: its keys and arguments as they are sent."""

from __future__ import annotations

import random
import struct
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from quotas.engine.accounts.lease_keys import LeaseKeys
from quotas.engine.accounts.packed_pool import AccountKeys, PackedDemand, PackedPool
from quotas.engine.ids import random_id
from quotas.engine.keys import Keys, digest
from quotas.engine.limits import codec
from quotas.engine.limits.packed import PackedLimits
from quotas.engine.limits.requests import INDEX_SIZE, RESERVATION_LIFE
from quotas.engine.redis.scripts import EMPTY, Call, Script, bulk, load, packed
from quotas.engine.types import AdmitRequest, Limit, PoolSpec

SAMPLE = 16
"""Of so many drawn at random a large pool chooses; only when all of them are busy are all weighed."""

_HEAD = struct.Struct("<BBBHBddddd")
_DRY, _QUIET, _RESERVE, _TOKEN, _KEY, _STICKY, _POOLED, _PAUSED = 1, 2, 4, 8, 16, 32, 64, 128
_NO_POOL = b"".join(map(bulk, (b"", bytes(80), b"", b"", codec.DOUBLE.pack(1.0))))


@dataclass(slots=True)
class Prepared:
    """One admission, packed for the script."""

    request: AdmitRequest
    limiting: list[Limit]
    ordered: Sequence[Limit]
    plan: PackedPool | None
    asked: PackedDemand | None
    offered: Sequence[AccountKeys]
    call: Call
    lease: str
    lease_key: bytes
    reservation: str | None
    sampled: bool
    dry: bool = False
    counters: tuple[bytes, ...] = ()
    """Of the limits that limit, in order."""


@dataclass(slots=True)
class _CallerSide:
    """What the caller's limits add to a call."""

    limits: PackedLimits
    flags: int
    heads: list[bytes] = field(default_factory=list)
    """Keys before the counters: of the token and of the reservation."""
    slot: str = ""
    reservation: str | None = None
    life: float = RESERVATION_LIFE


@dataclass(slots=True)
class _PoolSide:
    """What the pool adds to a call."""

    first: bytes
    args: bytes
    plan: PackedPool | None = None
    demand: PackedDemand | None = None
    accounts: Sequence[AccountKeys] = ()
    sampled: bool = False
    flags: int = 0
    heads: list[bytes] = field(default_factory=list)
    key_count: int = 0
    keys: bytes = b""


class AdmissionCalls:
    """Packs the calls of `acquire.lua`; `leases` gets the keys of each lease that is acquired."""

    def __init__(self, keys: Keys, leases: LeaseKeys, clock: Callable[[], int] | None, chance: random.Random) -> None:
        self.keys = keys
        self.leases = leases
        self.clock = clock
        self._random = chance
        self._acquire = load("acquire")
        self._look = load("acquire", read_only=True)
        self._plans: OrderedDict[int, PackedPool] = OrderedDict()

    def plan(self, pool: PoolSpec) -> PackedPool:
        """The pool prepared for the scripts; kept for as long as the same object is passed."""
        known = self._plans.get(id(pool))
        if known is None or known.pool is not pool:
            known = self._plans[id(pool)] = PackedPool(pool, self.keys)
            while len(self._plans) > 256:
                self._plans.popitem(last=False)
        return known

    def _plain(self, request: AdmitRequest) -> Prepared | None:
        """An admission of nothing but an account, whose bytes are known but for its lease; None for any other."""
        pool = request.pool
        if pool is None or request.limits or request.key or request.token or request.without or self.clock is not None:
            return None
        plan = self.plan(pool)
        asked = plan.known(request)
        if asked is None or plan.sampled or pool.strategy == "weighted_random":
            return None
        if asked.around is None:
            figures = _HEAD.pack(
                0, _POOLED | (_PAUSED if pool.paused else 0), len(asked.templates), len(plan.accounts), plan.strategy, 0.0,
                float(round(pool.lease_ttl * 1000)), RESERVATION_LIFE * 1000, INDEX_SIZE, plan.initial,
            )  # fmt: skip
            asked.around = (
                packed(self._acquire, 3 + plan.key_count, 10, plan.packed_head),
                plan.packed_keys + EMPTY + bulk(figures),
                EMPTY + bulk(asked.specs) + asked.packed,
            )
        lease = random_id()
        lease_key = self.leases.key(lease)
        before, between, after = asked.around
        payload = b"%b$%d\r\n%b\r\n%b$%d\r\n%b\r\n%b" % (
            before, len(lease_key), lease_key, between, len(lease), lease.encode(), after,
        )  # fmt: skip
        call = Call(self._acquire, (), (), payload)
        return Prepared(request, [], (), plan, asked, plan.accounts, call, lease, lease_key, None, False)

    def prepare(self, request: AdmitRequest, whole: bool = False, *, dry: bool = False) -> Prepared:
        """What is to be sent for a request. `whole`: all accounts of a large pool; `dry`: to look, not to charge. With
        a token that was admitted, what was answered then is looked at."""
        plain = None if dry else self._plain(request)
        if plain is not None:
            return plain
        now = self.clock() if self.clock else time.time_ns() // 1000
        caller = self._caller_side(request, now, dry)
        pool = self._no_pool() if request.pool is None else self._pool_side(request, request.pool, whole, now)
        lease = random_id()
        lease_key = self.leases.key(lease)
        script = self._look if dry else self._acquire
        call = Call(script, packed=self._pack(script, caller, pool, lease, lease_key, now))
        return Prepared(
            request, caller.limits.limiting, caller.limits.ordered, pool.plan, pool.demand, pool.accounts, call, lease,
            lease_key, caller.reservation, pool.sampled, dry, caller.limits.counters,
        )  # fmt: skip

    def _caller_side(self, request: AdmitRequest, now: int, dry: bool) -> _CallerSide:
        """The caller's limits: their counters, and whether the charge is kept to be settled."""
        of_limits = PackedLimits.of(request.limits, self.keys, now)
        side = _CallerSide(of_limits, _DRY if dry else 0)
        if request.token:
            side.flags |= _TOKEN
            side.heads.append(self.token_key(request.token))
        if of_limits.slot_life:
            side.life = of_limits.slot_life
        if not dry and of_limits.reserves:
            side.slot = side.reservation = random_id()
            side.flags |= _RESERVE
            side.heads.append(self.keys.reservation(side.reservation))
        elif of_limits.slot_life:
            side.slot = random_id()
        return side

    def _no_pool(self) -> _PoolSide:
        state = bulk(self.keys.key("a", "p", "-"))
        return _PoolSide(first=state + state, args=_NO_POOL)

    def _pool_side(self, request: AdmitRequest, pool: PoolSpec, whole: bool, now: int) -> _PoolSide:
        """The accounts to choose from: all, or some of a large pool, or all but one that has refused the request."""
        plan = self.plan(pool)
        demand = plan.asked(request, now)
        bound = pool.sticky and bool(request.key)  # its account must be among those that are offered
        accounts: Sequence[AccountKeys] = plan.accounts
        sampled = plan.sampled and not whole and not bound
        if sampled:
            accounts = self._random.sample(plan.accounts, SAMPLE)
        if request.without:
            accounts = [one for one in accounts if one.account.id != request.without]
        some = sampled or bool(request.without)
        flags = _POOLED | (_PAUSED if pool.paused else 0) | (_QUIET if sampled else 0)
        heads = []
        if request.key:
            flags |= _KEY | (_STICKY if pool.sticky else 0)
            if pool.sticky:
                heads.append(self.keys.key("a", "y", pool.id, digest(request.key)))
        key_count, keys = self._pool_keys(request, plan, demand, accounts, some)
        return _PoolSide(
            plan.packed_head, demand.packed_for(accounts) if some else demand.packed, plan, demand, accounts, sampled,
            flags, heads, key_count, keys,
        )  # fmt: skip

    def _pack(
        self, script: Script, caller: _CallerSide, pool: _PoolSide, lease: str, lease_key: bytes, now: int
    ) -> bytes:
        """The call of the script, as it is sent."""
        limits, life = caller.limits, caller.life * 1000
        flags = caller.flags | pool.flags
        if pool.plan is None or pool.demand is None:
            figures = _HEAD.pack(limits.count, flags, 0, 0, 0, 0.0, life, life, INDEX_SIZE, -1.0)
            specs = b""
        else:
            figures = _HEAD.pack(
                limits.count, flags, len(pool.demand.templates), len(pool.accounts), pool.plan.strategy,
                self._random.random(), float(round(pool.plan.pool.lease_ttl * 1000)), life, INDEX_SIZE,
                pool.plan.initial,
            )  # fmt: skip
            specs = pool.demand.specs
        heads = [*caller.heads, *pool.heads]
        return packed(
            script,
            3 + len(heads) + 2 * limits.count + pool.key_count,
            10 + limits.count,
            pool.first,
            bulk(lease_key),
            *map(bulk, heads),
            limits.counters_sent,
            limits.indexes_sent,
            pool.keys,
            EMPTY if self.clock is None else bulk(b"%d" % now),
            bulk(figures),
            bulk(lease.encode()),
            bulk(caller.slot.encode()),
            bulk(limits.specs + specs),
            pool.args,
            limits.members_sent,
        )

    def _pool_keys(
        self, request: AdmitRequest, plan: PackedPool, asked: PackedDemand, accounts: Sequence[AccountKeys], some: bool
    ) -> tuple[int, bytes]:
        """The keys of the accounts that are offered (all, or `some`): how many, and as they are sent."""
        if not request.key:
            if not some:
                return plan.key_count, plan.packed_keys
            keys = [key for one in accounts for key in (one.state, *one.counters)]
        else:
            hashed = digest(request.key)
            mine = asked.templates[len(plan.own) :]
            keys = []
            for one in accounts:
                keys += [one.state, self.keys.key("a", "k", one.account.id, hashed), *one.counters]
                keys += self.key_counters(mine, one, request.key)
        return len(keys), b"".join(map(bulk, keys))

    def key_counters(self, templates: Sequence[Limit], one: AccountKeys, key: str) -> list[bytes]:
        """The counters that an account has for a key (a chat)."""
        return [self.keys.counter(replace(limit, partition=one.account.id, subject=key)) for limit in templates]

    def token_key(self, token: str) -> bytes:
        return self.keys.admission_token(token)

    def remember(self, one: Prepared, index: int) -> None:
        """Keep the keys of a lease that this process has acquired."""
        assert one.plan is not None and one.asked is not None
        chosen = one.offered[index]
        key = one.request.key
        lease_key = bulk(one.lease_key)
        if not key:
            count, counters = one.plan.settling(chosen)
            cooldown = lease_key
        else:
            mine = self.key_counters(one.asked.templates[len(one.plan.own) :], chosen, key)
            every = (*chosen.counters, *mine)
            count, counters = len(every), b"".join(map(bulk, every))
            cooldown = bulk(self.keys.key("a", "k", chosen.account.id, digest(key)))
        keys = b"".join((lease_key, bulk(chosen.state), one.plan.packed_head, cooldown, counters))
        self.leases.remember(one.lease, (5 + count, keys))
