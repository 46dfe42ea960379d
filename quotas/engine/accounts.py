"""Upstream accounts: one atomic step picks an account and reserves its capacity, another one settles the call.

The story of a call: `admit` holds it against its caller's limits and against the pool's accounts, and answers with a
lease or with the exact earliest time; the call is made with the account's credential (which is never here); `settle`
tells how it went, and the account's cooldown, breaker, health, learned quota and concurrency follow from that.
"""

from __future__ import annotations

import json
import random
import secrets
import struct
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from . import accounts_outcome, accounts_plan, wire
from .accounts_plan import AccountKeys, Asked, PoolPlan
from .errors import LimiterUnavailable
from .keys import Keys, digest, subject
from .limiter import INDEX_SIZE, RESERVATION_LIFE, in_order, wants_reservation
from .scripts import Call, bulk, load, packed
from .transport import Transport
from .types import AccountState, Admission, AdmitRequest, Decision, Limit, Outcome, PoolSpec, Settled

if TYPE_CHECKING:
    import redis as redis_py
    from redis.cluster import RedisCluster

SAMPLE = 16
"""Of so many drawn at random a large pool chooses; only when all of them are busy are all weighed."""

_HEAD = struct.Struct("<BBBHBddddd")
_POOL = struct.Struct("<BhdB")
_VIEW = struct.Struct("<Bdd")
_DRY, _QUIET, _RESERVE, _TOKEN, _KEY, _STICKY, _POOLED, _PAUSED = 1, 2, 4, 8, 16, 32, 64, 128
_UNTOLD = bulk(b"")
_NO_POOL = b"".join(map(bulk, (b"", bytes(80), b"", b"", wire.DOUBLE.pack(1.0))))
_NONE, _GIVEN, _IMPOSSIBLE, _DISABLED = 0, 1, 2, 3
_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class AccountView:
    """One account in the light of one call: whether it could take it, and if not, why and for how long (seconds)."""

    id: str
    name: str
    available: bool
    chosen: bool
    reason: str
    wait: float | None
    """Seconds; 0 when it is available, None when waiting does not help."""
    health: float


@dataclass(slots=True)
class _Prepared:
    """One admission on its way to the script."""

    request: AdmitRequest
    held: list[Limit]
    ordered: Sequence[Limit]
    plan: PoolPlan | None
    asked: Asked | None
    offered: Sequence[AccountKeys]
    call: Call
    lease: str
    lease_key: bytes
    reservation: str | None
    sampled: bool


class Accounts:
    """Admits calls to accounts and settles them, on one Redis or Valkey server.

    `redis` is a redis-py client (its connections are used as a model), `prefix` as the limiter's, `clock` returns
    microseconds since the epoch and is for tests, as `chance` is: without it the server's own time decides. Every
    method raises LimiterUnavailable when the server can't be reached or can't answer. Threads may share an instance.
    """

    def __init__(
        self,
        redis: redis_py.Redis | RedisCluster,
        *,
        prefix: str = "sl",
        clock: Callable[[], int] | None = None,
        timeout: float | None = None,
        chance: random.Random | None = None,
    ) -> None:
        self.keys = Keys(prefix)
        self.clock = clock
        self.transport = Transport(redis, tag=self.keys.tag, timeout=timeout)
        self._acquire = load("acquire")
        self._look = load("acquire", read_only=True)
        self._settle = load("settle_lease")
        self._verb = load("account_verb")
        self._states = load("account_states", read_only=True)
        self._plans: OrderedDict[int, PoolPlan] = OrderedDict()
        self._leases: OrderedDict[str, tuple[int, bytes]] = OrderedDict()
        self._random = chance or random.Random()
        self._lease_prefix = self.keys.key("a", "l") + b":"

    # -- admitting -----------------------------------------------------------------------------------------------

    def admit(self, request: AdmitRequest) -> Admission:
        """Admit one call, or say when it would pass. Both sides are charged, or neither is."""
        if not request.fallbacks and not request.limits:
            one = self._prepare(request)
            reply = self.transport.send(one.call)
            if reply[0][0] != wire.STALE:
                answer = self._decode(one, reply)
                if answer.allowed or not one.sampled:
                    return answer
        return self.admit_many([request])[0]

    def admit_many(self, requests: Iterable[AdmitRequest]) -> list[Admission]:
        """Many admissions in one round trip, in order, each all or nothing by itself.

        Those that a sample of a large pool could not take, and those with fallback pools, take another round.
        """
        asked = list(requests)
        answers: list[Admission | None] = [None] * len(asked)
        turns = [(number, request, 0, False) for number, request in enumerate(asked)]
        while turns:
            prepared = [self._prepare(self._turn(request, turn), whole) for _, request, turn, whole in turns]
            replies = self.transport.run_many([one.call for one in prepared])
            again = []
            for (number, request, turn, whole), one, reply in zip(turns, prepared, replies, strict=True):
                if wire.STATUS.unpack_from(reply[0])[0] == wire.STALE:
                    if self.clock is not None or whole is None:
                        raise LimiterUnavailable("no calendar period fits the server's time")
                    again.append((number, request, turn, whole))
                    continue
                answer = self._decode(one, reply)
                if one.sampled and not answer and answer.bound_by == "pool":
                    again.append((number, request, turn, True))
                    continue
                answers[number] = before = _better(answers[number], answer)
                if not before and before.bound_by == "pool" and turn < len(request.fallbacks):
                    again.append((number, request, turn + 1, False))
            turns = again
        return [answer for answer in answers if answer is not None]

    @staticmethod
    def _turn(request: AdmitRequest, turn: int) -> AdmitRequest:
        return request if turn == 0 else replace(request, pool=request.fallbacks[turn - 1])

    def _plain(self, request: AdmitRequest) -> _Prepared | None:
        """An admission of nothing but an account, whose bytes are known but for its lease; None for any other."""
        pool = request.pool
        if pool is None or request.limits or request.key or request.token or self.clock is not None:
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
                plan.packed_keys + _UNTOLD + bulk(figures),
                _UNTOLD + bulk(asked.specs) + asked.packed,
            )
        lease = secrets.token_urlsafe(15)
        lease_key = self._lease_prefix + lease.encode()
        before, between, after = asked.around
        payload = b"%b$%d\r\n%b\r\n%b$%d\r\n%b\r\n%b" % (
            before, len(lease_key), lease_key, between, len(lease), lease.encode(), after,
        )  # fmt: skip
        call = Call(self._acquire, (), (), payload)
        return _Prepared(request, [], (), plan, asked, plan.accounts, call, lease, lease_key, None, False)

    def _prepare(self, request: AdmitRequest, whole: bool = False, *, dry: bool = False) -> _Prepared:
        plain = None if dry else self._plain(request)
        if plain is not None:
            return plain
        ordered = in_order(request.limits)
        held = [limit for limit in ordered if limit.limit is not None]
        counters = [self.keys.counter(limit) for limit in held]
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
            heads.append(self._token_key(request.token))
        slots = [limit.lease_ttl for limit in held if limit.algorithm == "concurrency" and limit.cost]
        if slots:
            life = max(slots)
        if not dry and wants_reservation(held):
            slot = reservation = secrets.token_urlsafe(15)
            flags |= _RESERVE
            heads.append(self.keys.reservation(reservation))
        elif slots:
            slot = secrets.token_urlsafe(15)
        lease_key = self._lease_prefix + lease.encode()
        counters += [self.keys.index(limit) for limit in held]
        asked: Asked | None = None
        accounts: Sequence[AccountKeys] = ()
        sampled = False
        if plan is None:
            state = self.keys.key("a", "p", "-")
            first, pool_keys, key_count, pool_args = bulk(state) + bulk(state), b"", 0, _NO_POOL
            figures = _HEAD.pack(len(held), flags, 0, 0, 0, 0.0, life * 1000, life * 1000, INDEX_SIZE, -1.0)
            specs = b""
        else:
            pool = plan.pool
            asked = plan.asked(request, now)
            bound = pool.sticky and bool(request.key)  # its account must be among those that are offered
            accounts, sampled = plan.accounts, plan.sampled and not whole and not bound
            if sampled:
                accounts = self._random.sample(plan.accounts, SAMPLE)
            flags |= _POOLED | (_PAUSED if pool.paused else 0) | (_QUIET if sampled else 0)
            if request.key:
                flags |= _KEY | (_STICKY if pool.sticky else 0)
                if pool.sticky:
                    heads.append(self.keys.key("a", "y", pool.id, digest(request.key)))
            key_count, pool_keys = self._pool_keys(request, plan, asked, accounts, sampled)
            first, specs = plan.packed_head, asked.specs
            pool_args = asked.packed_for(accounts) if sampled else asked.packed
            figures = _HEAD.pack(
                len(held),
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
        if held:
            specs = b"".join([wire.pack_spec(limit, now) for limit in held]) + specs
        script = self._look if dry else self._acquire
        payload = packed(
            script,
            3 + len(heads) + len(counters) + key_count,
            10 + len(held),
            first,
            bulk(lease_key),
            b"".join(map(bulk, heads + counters)),
            pool_keys,
            _UNTOLD if self.clock is None else bulk(b"%d" % now),
            bulk(figures),
            bulk(lease.encode()),
            bulk(slot.encode()),
            bulk(specs),
            pool_args,
            b"".join([bulk(subject(limit.partition, limit.subject)[1]) for limit in held]),
        )
        call = Call(script, packed=payload)
        return _Prepared(request, held, ordered, plan, asked, accounts, call, lease, lease_key, reservation, sampled)

    def _pool_keys(
        self, request: AdmitRequest, plan: PoolPlan, asked: Asked, accounts: Sequence[AccountKeys], sampled: bool
    ) -> tuple[int, bytes]:
        """The keys of the accounts that are offered: how many, and as they are sent."""
        if not request.key:
            if not sampled:
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

    def plan(self, pool: PoolSpec) -> PoolPlan:
        """The pool prepared for the scripts; kept for as long as the same object is asked for."""
        known = self._plans.get(id(pool))
        if known is None or known.pool is not pool:
            known = self._plans[id(pool)] = PoolPlan(pool, self.keys)
            while len(self._plans) > 256:
                self._plans.popitem(last=False)
        return known

    def _decode(self, one: _Prepared, reply: list[Any]) -> Admission:
        status, moment = wire.STATUS.unpack_from(reply[0])
        pool_status, index, wait, probe = _POOL.unpack_from(reply[1])
        replayed = len(reply) > 2 and reply[2] == b"="
        plan = one.plan
        if pool_status == _GIVEN and plan is not None and not one.ordered and not replayed:
            account = one.offered[index].account
            self._remember(one, index)
            return Admission(
                allowed=True,
                lease=one.lease,
                account_id=account.id,
                account=account.name,
                expires_in=plan.pool.lease_ttl,
                reasons=_reasons(reply) if len(reply) > 2 else {},
                pool=plan.pool.name,
                probe=probe > 0,
                half_opened=probe == 1,
            )
        decision = self._decide(one, reply[0], status == wire.ALLOWED, int(moment))
        if replayed:
            return self._replayed(one, reply, decision)
        given = plan is None or pool_status == _GIVEN
        if status == wire.ALLOWED and given:
            lent = None
            if plan is not None:
                lent = one.offered[index].account
                self._remember(one, index)
            return Admission(
                allowed=True,
                lease=one.lease if lent else None,
                account_id=lent.id if lent else None,
                account=lent.name if lent else None,
                expires_in=plan.pool.lease_ttl if plan else 0.0,
                reservation=one.reservation,
                reasons=_reasons(reply),
                limits=decision.limits,
                pool=plan.pool.name if plan else None,
                probe=probe > 0,
                half_opened=probe == 1,
            )
        pool_wait = 0.0 if given else (None if wait < 0 else wait / 1e6)
        limit_wait = 0.0 if decision.allowed else decision.retry_after
        by_pool = not given and (decision.allowed or _longer(pool_wait, limit_wait))
        if decision.impossible:
            by_pool = False
        elif pool_status == _IMPOSSIBLE and not given:
            by_pool = True
        none = pool_wait is None or limit_wait is None
        return Admission(
            allowed=False,
            retry_after=None if none else max(pool_wait or 0.0, limit_wait or 0.0),
            bound_by="pool" if by_pool else "limit",
            binding=plan.pool.name if by_pool and plan else decision.binding,
            reasons=_reasons(reply) if not given else {},
            impossible=decision.impossible or (not given and pool_status == _IMPOSSIBLE),
            disabled=not given and pool_status == _DISABLED,
            limits=decision.limits,
            pool=plan.pool.name if plan else None,
        )

    def _decide(self, one: _Prepared, packed: bytes, allowed: bool, moment: int) -> Decision:
        known = (len(packed) - wire.STATUS.size) // wire.STATE.size
        limits: list[Limit] = []
        for limit in one.ordered:  # a replayed answer may be from before the policies were changed
            known -= limit.limit is not None
            if known < 0:
                break
            limits.append(limit)
        states, impossible = wire.states_of(limits, packed, moment)
        return wire.decide(limits, states, impossible, allowed)

    def _replayed(self, one: _Prepared, reply: list[Any], decision: Decision) -> Admission:
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

    # -- settling ------------------------------------------------------------------------------------------------

    def settle(self, lease: str, outcome: Outcome) -> Settled | None:
        """Tell how the call through `lease` ended. The first call counts, later ones get its answer.

        None for a lease that is not known (or was settled more than an hour ago), and nothing is changed.
        """
        keys = self._leases.pop(lease, None)
        if keys is None:
            return self.settle_many([(lease, outcome)])[0]
        reply = self.transport.send(self._settling(lease, outcome, keys))
        return None if reply is None else self._settled(lease, outcome, reply)

    def settle_many(self, outcomes: Iterable[tuple[str, Outcome]]) -> list[Settled | None]:
        """Many settles in at most two round trips, in order."""
        given = list(outcomes)
        if not given:
            return []
        known = [self._leases.pop(lease, None) for lease, _ in given]
        unknown = [number for number, keys in enumerate(known) if keys is None]
        if unknown:
            records = self.transport.command("MGET", *(self.keys.key("a", "l", given[number][0]) for number in unknown))
            for number, record in zip(unknown, records, strict=True):
                if record is not None:
                    known[number] = self._keys_of(given[number][0], record)
        calls = []
        sent = [number for number, keys in enumerate(known) if keys is not None]
        for number in sent:
            lease, outcome = given[number]
            keys = known[number]
            assert keys is not None
            calls.append(self._settling(lease, outcome, keys))
        settled: list[Settled | None] = [None] * len(given)
        for number, reply in zip(sent, self.transport.run_many(calls), strict=True):
            if reply is not None:
                settled[number] = self._settled(*given[number], reply)
        return settled

    def forget(self, token: str) -> None:
        """What was admitted under this token is given back: asked again, it is admitted anew and not answered alike.

        Before its lease is settled: whoever dies in between leaves units reserved until the lease expires, and none
        that nobody pays for.
        """
        self.transport.command("DEL", self._token_key(token))

    def _token_key(self, token: str) -> bytes:
        return self.keys.key("a", "t", digest(token))

    def _settling(self, lease: str, outcome: Outcome, keys: tuple[int, bytes]) -> Call:
        now = _UNTOLD if self.clock is None else bulk(b"%d" % self.clock())
        args = accounts_outcome.pack(outcome, self._random.random(), lease.encode())
        return Call(self._settle, packed=packed(self._settle, keys[0], 9, keys[1], now, args))

    def _settled(self, lease: str, outcome: Outcome, reply: list[Any]) -> Settled:
        repeated, category, cooldown, transition, before, after, account, errors, use, probe = reply
        return Settled(
            lease=lease,
            outcome=category.decode(),
            cooldown=float(cooldown) / 1e6,
            learned={} if repeated else outcome.learned,
            repeated=bool(repeated),
            transition=transition.decode(),
            account_id=account.decode(),
            concurrency=(before, after) if before or after else None,
            concurrency_why=_why_moved(after > before, errors / 1000, use / 1000) if before or after else "",
            probe=probe == 1,
        )

    def _remember(self, one: _Prepared, index: int) -> None:
        """Keep the keys of a lease that this process was given, so that settling it takes one round trip."""
        assert one.plan is not None and one.asked is not None
        chosen = one.offered[index]
        key = one.request.key
        lease_key = bulk(one.lease_key)
        if not key:
            count, counters = one.plan.settling(chosen, one.asked)
            cooldown = lease_key
        else:
            mine = self._key_counters(one.asked.templates[len(one.plan.own) :], chosen, key)
            every = zip((*chosen.counters, *mine), one.asked.charged, strict=True)
            charged = [counter for counter, charges in every if charges]
            count, counters = len(charged), b"".join(map(bulk, charged))
            cooldown = bulk(self.keys.key("a", "k", chosen.account.id, digest(key)))
        self._leases[one.lease] = (
            5 + count,
            b"".join((lease_key, bulk(chosen.state), one.plan.packed_head, cooldown, counters)),
        )
        if len(self._leases) > _REMEMBERED:
            self._leases.popitem(last=False)

    def _keys_of(self, lease: str, record: bytes) -> tuple[int, bytes]:
        key = self.keys.key("a", "l", lease)
        if record.startswith(b"="):
            keys = [key] * 5
        else:
            state, pool, statistics, cooldown, *counters = record.partition(b"\n")[0].split(b" ")
            keys = [key, state, pool, statistics, key if cooldown == b"-" else cooldown, *counters]
        return len(keys), b"".join(map(bulk, keys))

    # -- showing -------------------------------------------------------------------------------------------------

    def states(self, pool: PoolSpec) -> list[AccountState]:
        """Every account of the pool as it stands, in the pool's order. Writes nothing."""
        plan = self.plan(pool)
        if not plan.accounts:
            return []
        keys = [plan.state, plan.statistics, *(one.state for one in plan.accounts)]
        now = b"" if self.clock is None else b"%d" % self.clock()
        enabled = bytes(one.account.enabled for one in plan.accounts)
        args = [now, struct.pack("<dd", pool.breaker.probes, plan.initial), enabled]
        late = self._prepare(AdmitRequest(pool=pool, priority=9), True, dry=True)
        reply, views = self.transport.run_many([Call(self._states, keys, args), late.call])
        moment = int(reply[0]) / 1e6
        statistics = dict(zip(reply[1][::2], reply[1][1::2], strict=True))
        rows = zip(plan.accounts, reply[2:], self._views(late, views), strict=True)
        return [_state(pool, one, json.loads(text), view, statistics, moment) for one, text, view in rows]

    def explain(
        self, pool: PoolSpec, cost: dict[str, int] | None = None, *, priority: int = 5, key: str = "", model: str = ""
    ) -> list[AccountView]:
        """Which account a call would get now, and for each other one why not and for how long. Charges nothing."""
        request = AdmitRequest(pool=pool, cost=cost or {}, priority=priority, key=key, model=model)
        prepared = self._prepare(request, True, dry=True)
        return self._views(prepared, self.transport.run_many([prepared.call])[0])

    @staticmethod
    def _views(prepared: _Prepared, reply: list[Any]) -> list[AccountView]:
        _, chosen, _, _ = _POOL.unpack_from(reply[1])
        rows = _VIEW.iter_unpack(memoryview(reply[1])[_POOL.size :])
        return [
            AccountView(
                id=one.account.id,
                name=one.account.name,
                available=available == 1,
                chosen=number == chosen,
                reason=reason.decode(),
                wait=None if wait < 0 else wait / 1e6,
                health=health,
            )
            for number, (one, (available, wait, health), reason) in enumerate(
                zip(prepared.offered, rows, reply[2:], strict=True)
            )
        ]

    # -- operating -----------------------------------------------------------------------------------------------

    def clear_cooldown(self, account_id: str) -> bool:
        """End an account's cooldown. True if it had one."""
        return self._do(account_id, "clear_cooldown")

    def clear_pool_cooldown(self, pool: PoolSpec) -> bool:
        """End the cooldown that a whole pool has since its accounts were refused together. True if it had one."""
        return self._do_at(self.plan(pool).state, "clear_cooldown")

    def trip(self, account_id: str, open_for: float = 60.0) -> bool:
        """Open an account's breaker for `open_for` seconds."""
        return self._do(account_id, "trip", b"%d" % round(open_for * 1e6))

    def close(self, account_id: str) -> bool:
        """Close an account's breaker. Calls that began before count for it no more. True if it was open."""
        return self._do(account_id, "close")

    def disable(self, account_id: str, why: str = "operator") -> bool:
        """Take an account out until it is enabled again. True if it was in."""
        return self._do(account_id, "disable", why.encode("utf-8", "replace"))

    def enable(self, account_id: str) -> bool:
        """Put a disabled account back in. True if it was out."""
        return self._do(account_id, "enable")

    def restore(self, states: Iterable[AccountState]) -> int:
        """Rebuild what was lost with the server's memory from stored states; what is live wins. How many changed.

        `until` of each state counts from now.
        """
        changed = 0
        for state in states:
            left = state.until or 0.0
            why = (state.why or "restored") if state.state == "disabled" else ""
            figures = struct.pack(
                "<ddd",
                left * 1e6 if state.state == "cooling_down" else -1,
                (left or 0.001) * 1e6 if state.state in ("open", "half_open") else -1,
                state.health if state.health < 1 else -1,
            )
            changed += self._do(state.id, "restore", figures + why.encode("utf-8", "replace"))
        return changed

    def _do(self, account_id: str, verb: str, argument: bytes = b"") -> bool:
        return self._do_at(accounts_plan.account_state_key(self.keys, account_id), verb, argument)

    def _do_at(self, key: bytes, verb: str, argument: bytes = b"") -> bool:
        now = b"" if self.clock is None else b"%d" % self.clock()
        return bool(self.transport.run(self._verb, [key], [now, verb, argument]))


def _why_moved(up: bool, errors: float, use: float) -> str:
    """Why concurrency went up or down, in words."""
    if up:
        return f"{1 - errors:.0%} of the calls succeeded and {use:.0%} of the quota is used"
    reasons = [f"{errors:.0%} of the calls failed"] if errors > 0.2 else []
    if use > 0.9:
        reasons.append(f"{use:.0%} of the quota is used")
    return " and ".join(reasons)


def _reasons(reply: list[Any]) -> dict[str, int]:
    names = reply[2:]
    return {name.decode(): count for name, count in zip(names[::2], names[1::2], strict=True)}


def _longer(pool_wait: float | None, limit_wait: float | None) -> bool:
    if limit_wait is None:
        return False
    return pool_wait is None or pool_wait >= limit_wait


def _better(before: Admission | None, after: Admission) -> Admission:
    """Of the answers of a pool and its fallback: the admission, else the earlier time with all reasons."""
    if before is None or after:
        return after
    reasons = dict(before.reasons)
    for reason, count in after.reasons.items():
        reasons[reason] = reasons.get(reason, 0) + count
    waits = [wait for wait in (before.retry_after, after.retry_after) if wait is not None]
    return replace(
        before,
        retry_after=min(waits, default=None),
        reasons=reasons,
        impossible=before.impossible and after.impossible,
        disabled=before.disabled and after.disabled,
    )


def _state(
    pool: PoolSpec,
    one: AccountKeys,
    found: dict[str, Any],
    view: AccountView,
    statistics: dict[bytes, bytes],
    moment: float,
) -> AccountState:
    suffix = one.state.rpartition(b":")[2]
    errors: dict[str, int] = {}
    skips: dict[str, int] = {}
    for field, count in statistics.items():
        kind, _, rest = field.partition(b":")
        owner, _, category = rest.partition(b":")
        if owner == suffix and category:
            (errors if kind == b"e" else skips)[category.decode()] = int(count)
    name, until, why = _named(pool, found, view)
    used, error_at = found.get("used"), found.get("error_at")
    return AccountState(
        id=one.account.id,
        name=one.account.name,
        state=name,  # type: ignore[arg-type]
        until=until,
        why=why,
        health=found["health"],
        successes=found["successes"],
        errors=errors,
        skips=skips,
        in_flight=found["busy"],
        concurrency=found.get("most"),
        learned=found["learned"] or {},
        models=found["models"] or {},
        latency=found.get("latency"),
        last_used=None if used is None else used / 1e6,
        last_error=found.get("error") or "",
        last_error_at=None if error_at is None else error_at / 1e6,
    )


def _named(pool: PoolSpec, found: dict[str, Any], view: AccountView) -> tuple[str, float | None, str]:
    """State, seconds until it ends, and why."""
    reason, left = found.get("reason"), found.get("left")
    if reason == "disabled":
        return "disabled", None, found.get("disabled") or "configuration"
    if reason == "breaker_open":
        return "open", left, "opened by an operator" if found.get("tripped") else "too many failures"
    if found.get("half_open") and reason != "cooldown":
        return "half_open", left, "waits for a probe" if reason is None else "a probe is out"
    if reason == "cooldown":
        return "cooling_down", left, found.get("why") or "its pool was refused as a whole"
    if pool.paused:
        return "paused", None, "its pool is paused"
    if view.reason == "paused":
        return "paused", view.wait, f"{pool.pause_at:.0%} of its quota is used: {pool.pause} priorities wait"
    return "available", None, ""
