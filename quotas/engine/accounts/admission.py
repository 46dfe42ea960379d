"""The codec of an admission: keys and arguments as they are sent, and the reply as an `Admission`."""

from __future__ import annotations

import random
import secrets
import struct
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from quotas.engine.accounts.packed_pool import AccountKeys, PackedDemand, PackedPool
from quotas.engine.keys import Keys, digest, subject
from quotas.engine.limits import codec
from quotas.engine.limits.limiter import INDEX_SIZE, RESERVATION_LIFE, in_order, wants_reservation
from quotas.engine.redis.scripts import EMPTY, Call, bulk, load, packed
from quotas.engine.types import Admission, AdmitRequest, Decision, Limit, LimitState, PoolSpec

SAMPLE = 16
"""Of so many drawn at random a large pool chooses; only when all of them are busy are all weighed."""
POOL = struct.Struct("<BhdB")

_HEAD = struct.Struct("<BBBHBddddd")
_DRY, _QUIET, _RESERVE, _TOKEN, _KEY, _STICKY, _POOLED, _PAUSED = 1, 2, 4, 8, 16, 32, 64, 128
_NO_POOL = b"".join(map(bulk, (b"", bytes(80), b"", b"", codec.DOUBLE.pack(1.0))))
_NONE, _ACQUIRED, _IMPOSSIBLE, _DISABLED = 0, 1, 2, 3
_REMEMBERED = 10_000


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


class AdmissionCalls:
    """Makes the calls of `acquire.lua`, reads its answers, and remembers the keys of the leases that this process acquired."""

    def __init__(self, keys: Keys, clock: Callable[[], int] | None, chance: random.Random) -> None:
        self.keys = keys
        self.clock = clock
        self._random = chance
        self._acquire = load("acquire")
        self._look = load("acquire", read_only=True)
        self._plans: OrderedDict[int, PackedPool] = OrderedDict()
        self._leases: OrderedDict[str, tuple[int, bytes]] = OrderedDict()
        self._lease_prefix = keys.key("a", "l") + b":"

    def plan(self, pool: PoolSpec) -> PackedPool:
        """The pool prepared for the scripts; kept for as long as the same object is asked for."""
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
        lease = secrets.token_urlsafe(15)
        lease_key = self.lease_key(lease)
        before, between, after = asked.around
        payload = b"%b$%d\r\n%b\r\n%b$%d\r\n%b\r\n%b" % (
            before, len(lease_key), lease_key, between, len(lease), lease.encode(), after,
        )  # fmt: skip
        call = Call(self._acquire, (), (), payload)
        return Prepared(request, [], (), plan, asked, plan.accounts, call, lease, lease_key, None, False)

    def prepare(self, request: AdmitRequest, whole: bool = False, *, dry: bool = False) -> Prepared:
        """What is to be sent for a request. `whole`: all accounts of a large pool; `dry`: to look, not to charge."""
        plain = None if dry else self._plain(request)
        if plain is not None:
            return plain
        ordered = in_order(request.limits)
        limiting = [limit for limit in ordered if limit.limit is not None]
        counters = [self.keys.counter(limit) for limit in limiting]
        if len(set(counters)) != len(counters):
            raise ValueError("one admission names the same counter twice")
        now = self.clock() if self.clock else time.time_ns() // 1000
        plan = self.plan(request.pool) if request.pool is not None else None
        lease = secrets.token_urlsafe(15)
        flags = _DRY if dry else 0
        reservation, slot, life = None, "", RESERVATION_LIFE
        heads: list[bytes] = []
        if request.token and not dry:
            flags |= _TOKEN
            heads.append(self.token_key(request.token))
        slots = [limit.lease_ttl for limit in limiting if limit.algorithm == "concurrency" and limit.cost]
        if slots:
            life = max(slots)
        if not dry and wants_reservation(limiting):
            slot = reservation = secrets.token_urlsafe(15)
            flags |= _RESERVE
            heads.append(self.keys.reservation(reservation))
        elif slots:
            slot = secrets.token_urlsafe(15)
        lease_key = self.lease_key(lease)
        counters += [self.keys.index(limit) for limit in limiting]
        asked: PackedDemand | None = None
        accounts: Sequence[AccountKeys] = ()
        sampled = False
        if plan is None:
            state = self.keys.key("a", "p", "-")
            first, pool_keys, key_count, pool_args = bulk(state) + bulk(state), b"", 0, _NO_POOL
            figures = _HEAD.pack(len(limiting), flags, 0, 0, 0, 0.0, life * 1000, life * 1000, INDEX_SIZE, -1.0)
            specs = b""
        else:
            pool = plan.pool
            asked = plan.asked(request, now)
            bound = pool.sticky and bool(request.key)  # its account must be among those that are offered
            accounts, sampled = plan.accounts, plan.sampled and not whole and not bound
            if sampled:
                accounts = self._random.sample(plan.accounts, SAMPLE)
            if request.without:
                accounts = [one for one in accounts if one.account.id != request.without]
            some = sampled or bool(request.without)
            flags |= _POOLED | (_PAUSED if pool.paused else 0) | (_QUIET if sampled else 0)
            if request.key:
                flags |= _KEY | (_STICKY if pool.sticky else 0)
                if pool.sticky:
                    heads.append(self.keys.key("a", "y", pool.id, digest(request.key)))
            key_count, pool_keys = self._pool_keys(request, plan, asked, accounts, some)
            first, specs = plan.packed_head, asked.specs
            pool_args = asked.packed_for(accounts) if some else asked.packed
            figures = _HEAD.pack(
                len(limiting),
                flags,
                len(asked.templates),
                len(accounts),
                plan.strategy,
                self._random.random(),
                float(round(pool.lease_ttl * 1000)),
                life * 1000,
                INDEX_SIZE,
                plan.initial,
            )
        if limiting:
            specs = b"".join([codec.pack_spec(limit, now) for limit in limiting]) + specs
        script = self._look if dry else self._acquire
        payload = packed(
            script,
            3 + len(heads) + len(counters) + key_count,
            10 + len(limiting),
            first,
            bulk(lease_key),
            b"".join(map(bulk, heads + counters)),
            pool_keys,
            EMPTY if self.clock is None else bulk(b"%d" % now),
            bulk(figures),
            bulk(lease.encode()),
            bulk(slot.encode()),
            bulk(specs),
            pool_args,
            b"".join([bulk(subject(limit.partition, limit.subject, limit.space)[1]) for limit in limiting]),
        )
        call = Call(script, packed=payload)
        return Prepared(
            request, limiting, ordered, plan, asked, accounts, call, lease, lease_key, reservation, sampled, dry
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
                    reservation=slot if one.reservation else None,
                    limits=decision.limits,
                    pool=pool.name,
                    replayed=True,
                )
        return Admission(
            allowed=True, reservation=slot if one.reservation else None, limits=decision.limits, replayed=True
        )

    # What settling a lease needs: how many keys, and the keys as they are sent.

    def take(self, lease: str) -> tuple[int, bytes] | None:
        """The keys of a lease that this process was given; once."""
        return self._leases.pop(lease, None)

    def _remember(self, one: Prepared, index: int) -> None:
        """Keep the keys of a lease that this process was given, so that settling it takes one round trip."""
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
        self._leases[one.lease] = (
            5 + count,
            b"".join((lease_key, bulk(chosen.state), one.plan.packed_head, cooldown, counters)),
        )
        if len(self._leases) > _REMEMBERED:
            self._leases.popitem(last=False)

    def recorded(self, lease: str, record: bytes) -> tuple[int, bytes]:
        """The keys of a lease by its record: another process was given it."""
        key = self.lease_key(lease)
        if record.startswith(b"="):
            keys = [key] * 5
        else:
            state, pool, statistics, cooldown, *counters = record.partition(b"\n")[0].split(b" ")
            keys = [key, state, pool, statistics, key if cooldown == b"-" else cooldown, *counters]
        return len(keys), b"".join(map(bulk, keys))

    @staticmethod
    def state_key_of(record: bytes) -> bytes | None:
        """The key of the account's state in a lease's record; None where the lease is settled."""
        return None if record.startswith(b"=") else record.partition(b"\n")[0].split(b" ", 1)[0]

    def lease_key(self, lease: str) -> bytes:
        return self._lease_prefix + lease.encode()

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
