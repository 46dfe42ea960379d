"""The codec of an admission: keys and arguments as they are sent, and the reply as an `Admission`."""

from __future__ import annotations

import random
import struct
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from quotas.engine.accounts.lease_keys import LeaseKeys
from quotas.engine.accounts.packed_pool import AccountKeys, PackedDemand, PackedPool
from quotas.engine.ids import random_id
from quotas.engine.keys import Keys, digest, subject
from quotas.engine.limits import codec
from quotas.engine.limits.requests import INDEX_SIZE, RESERVATION_LIFE, in_order, wants_reservation
from quotas.engine.redis.scripts import EMPTY, Call, Script, bulk, load, packed
from quotas.engine.types import Admission, AdmitRequest, Decision, Limit, LimitState, PoolSpec

SAMPLE = 16
"""Of so many drawn at random a large pool chooses; only when all of them are busy are all weighed."""
POOL = struct.Struct("<BhdB")

_HEAD = struct.Struct("<BBBHBddddd")
_DRY, _QUIET, _RESERVE, _TOKEN, _KEY, _STICKY, _POOLED, _PAUSED = 1, 2, 4, 8, 16, 32, 64, 128
_NO_POOL = b"".join(map(bulk, (b"", bytes(80), b"", b"", codec.DOUBLE.pack(1.0))))
_NONE, _ACQUIRED, _IMPOSSIBLE, _DISABLED = 0, 1, 2, 3


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


@dataclass(slots=True)
class _CallerSide:
    """What the caller's limits add to a call."""

    ordered: Sequence[Limit]
    limiting: list[Limit]
    counters: list[bytes]
    """Their counters, then their indexes."""
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
    """Packs the calls of `acquire.lua` and reads its replies; `leases` gets the keys of each lease that is acquired."""

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
        caller = self._caller_side(request, dry)
        pool = self._no_pool() if request.pool is None else self._pool_side(request, request.pool, whole, now)
        lease = random_id()
        lease_key = self.leases.key(lease)
        script = self._look if dry else self._acquire
        call = Call(script, packed=self._pack(script, caller, pool, lease, lease_key, now))
        return Prepared(
            request, caller.limiting, caller.ordered, pool.plan, pool.demand, pool.accounts, call, lease, lease_key,
            caller.reservation, pool.sampled, dry,
        )  # fmt: skip

    def _caller_side(self, request: AdmitRequest, dry: bool) -> _CallerSide:
        """The caller's limits: their counters, and whether the charge is kept to be settled."""
        ordered = in_order(request.limits)
        limiting = [limit for limit in ordered if limit.limit is not None]
        counters = [self.keys.counter(limit) for limit in limiting]
        if len(set(counters)) != len(counters):
            raise ValueError("one admission names the same counter twice")
        side = _CallerSide(ordered, limiting, [*counters, *map(self.keys.index, limiting)], _DRY if dry else 0)
        if request.token:
            side.flags |= _TOKEN
            side.heads.append(self.token_key(request.token))
        slots = [limit.lease_ttl for limit in limiting if limit.algorithm == "concurrency" and limit.cost]
        if slots:
            side.life = max(slots)
        if not dry and wants_reservation(limiting):
            side.slot = side.reservation = random_id()
            side.flags |= _RESERVE
            side.heads.append(self.keys.reservation(side.reservation))
        elif slots:
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
        limiting, life = caller.limiting, caller.life * 1000
        flags = caller.flags | pool.flags
        if pool.plan is None or pool.demand is None:
            figures = _HEAD.pack(len(limiting), flags, 0, 0, 0, 0.0, life, life, INDEX_SIZE, -1.0)
            specs = b""
        else:
            figures = _HEAD.pack(
                len(limiting), flags, len(pool.demand.templates), len(pool.accounts), pool.plan.strategy,
                self._random.random(), float(round(pool.plan.pool.lease_ttl * 1000)), life, INDEX_SIZE,
                pool.plan.initial,
            )  # fmt: skip
            specs = pool.demand.specs
        if limiting:
            specs = b"".join([codec.pack_spec(limit, now) for limit in limiting]) + specs
        keys = [*caller.heads, *pool.heads, *caller.counters]
        return packed(
            script,
            3 + len(keys) + pool.key_count,
            10 + len(limiting),
            pool.first,
            bulk(lease_key),
            b"".join(map(bulk, keys)),
            pool.keys,
            EMPTY if self.clock is None else bulk(b"%d" % now),
            bulk(figures),
            bulk(lease.encode()),
            bulk(caller.slot.encode()),
            bulk(specs),
            pool.args,
            b"".join([bulk(subject(limit.partition, limit.subject, limit.space)[1]) for limit in limiting]),
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
                keys += self._key_counters(mine, one, request.key)
        return len(keys), b"".join(map(bulk, keys))

    def _key_counters(self, templates: Sequence[Limit], one: AccountKeys, key: str) -> list[bytes]:
        """The counters that an account has for a key (a chat)."""
        return [self.keys.counter(replace(limit, partition=one.account.id, subject=key)) for limit in templates]

    def decode(self, one: Prepared, reply: list[Any]) -> Admission:
        """What the script answered; the keys of a lease that it gave are remembered."""
        pool_status, index, wait, probe = POOL.unpack_from(reply[1])
        replayed = len(reply) > 2 and reply[2] == b"="
        plan = one.plan
        acquired = plan is None or pool_status == _ACQUIRED
        if acquired and plan is not None and not one.ordered and not replayed:
            return self._admitted(one, reply, index, probe, ())
        status, moment = codec.STATUS.unpack_from(reply[0])
        decision = self._decide(one, reply[0], status == codec.ALLOWED, int(moment))
        if replayed:
            return self._replayed(one, reply, decision)
        if status == codec.ALLOWED and acquired:
            return self._admitted(one, reply, index, probe, decision.limits)
        return _denied(one, reply, decision, None if acquired else pool_status, wait)

    def _admitted(
        self, one: Prepared, reply: list[Any], index: int, probe: int, limits: tuple[LimitState, ...]
    ) -> Admission:
        plan = one.plan
        account = one.offered[index].account if plan is not None else None
        if plan is not None and not one.dry:
            self._remember(one, index)
        return Admission(
            allowed=True,
            lease=one.lease if account else None,
            account_id=account.id if account else None,
            account=account.name if account else None,
            expires_in=plan.pool.lease_ttl if plan else 0.0,
            reservation=one.reservation,
            reserved=tuple(map(self.keys.counter, one.limiting)) if one.reservation else (),
            reasons=_reasons(one, reply) if len(reply) > 2 else {},
            limits=limits,
            pool=plan.pool.name if plan else None,
            probe=probe > 0,
            half_opened=probe == 1,
        )

    def _decide(self, one: Prepared, packed: bytes, allowed: bool, moment: int) -> Decision:
        known = (len(packed) - codec.STATUS.size) // codec.STATE.size
        limits: list[Limit] = []
        for limit in one.ordered:  # a replayed answer may be from before the policies were changed
            known -= limit.limit is not None
            if known < 0:
                break
            limits.append(limit)
        states, impossible = codec.states_of(limits, packed, moment)
        return codec.decide(limits, states, impossible, allowed)

    def _replayed(self, one: Prepared, reply: list[Any], decision: Decision) -> Admission:
        lease, slot, suffix = (part.decode() for part in reply[3:6])
        request = one.request
        for pool in (request.pool, *request.fallbacks):
            account = self.plan(pool).by_suffix.get(suffix) if pool is not None else None
            if account is not None and pool is not None:
                return Admission(
                    allowed=True,
                    lease=lease,
                    account_id=account.id,
                    account=account.name,
                    expires_in=pool.lease_ttl,
                    reservation=slot or None,
                    limits=decision.limits,
                    pool=pool.name,
                    replayed=True,
                )
        return Admission(allowed=True, reservation=slot or None, limits=decision.limits, replayed=True)

    def _remember(self, one: Prepared, index: int) -> None:
        """Keep the keys of a lease that this process has acquired."""
        assert one.plan is not None and one.asked is not None
        chosen = one.offered[index]
        key = one.request.key
        lease_key = bulk(one.lease_key)
        if not key:
            count, counters = one.plan.settling(chosen)
            cooldown = lease_key
        else:
            mine = self._key_counters(one.asked.templates[len(one.plan.own) :], chosen, key)
            every = (*chosen.counters, *mine)
            count, counters = len(every), b"".join(map(bulk, every))
            cooldown = bulk(self.keys.key("a", "k", chosen.account.id, digest(key)))
        keys = b"".join((lease_key, bulk(chosen.state), one.plan.packed_head, cooldown, counters))
        self.leases.remember(one.lease, (5 + count, keys))

    def token_key(self, token: str) -> bytes:
        return self.keys.key("a", "t", digest(token))


def _denied(one: Prepared, reply: list[Any], decision: Decision, pool_status: int | None, wait: float) -> Admission:
    """The denial by one side or both: the longer wait binds. `pool_status`: why there is no account, None if it is not
    the pool that refuses; `wait` is the pool's, in microseconds."""
    by_pool_too = pool_status is not None
    pool_wait = (None if wait < 0 else wait / 1e6) if by_pool_too else 0.0
    limit_wait = 0.0 if decision.allowed else decision.retry_after
    bound_by_pool = by_pool_too and (decision.allowed or _longer(pool_wait, limit_wait))
    if decision.impossible:
        bound_by_pool = False
    elif pool_status == _IMPOSSIBLE:
        bound_by_pool = True
    pool = one.plan.pool.name if one.plan else None
    never = pool_wait is None or limit_wait is None
    return Admission(
        allowed=False,
        retry_after=None if never else max(pool_wait or 0.0, limit_wait or 0.0),
        bound_by="pool" if bound_by_pool else "limit",
        binding=pool if bound_by_pool and pool else decision.binding,
        reasons=_reasons(one, reply) if by_pool_too else {},
        impossible=decision.impossible or pool_status == _IMPOSSIBLE,
        disabled=pool_status == _DISABLED,
        limits=decision.limits,
        pool=pool,
    )


def _reasons(one: Prepared, reply: list[Any]) -> dict[str, int]:
    names = reply[2:]
    if one.dry:  # one for each account, empty where it could take the call
        return dict(Counter(name.decode() for name in names if name))
    return {name.decode(): count for name, count in zip(names[::2], names[1::2], strict=True)}


def _longer(pool_wait: float | None, limit_wait: float | None) -> bool:
    if limit_wait is None:
        return False
    return pool_wait is None or pool_wait >= limit_wait
