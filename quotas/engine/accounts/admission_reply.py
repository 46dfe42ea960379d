"""Reads the script's reply to an admission as an `Admission`."""

from __future__ import annotations

import struct
from collections import Counter
from typing import Any

from quotas.engine.accounts.admission import AdmissionCalls, Prepared
from quotas.engine.limits import codec
from quotas.engine.types import Admission, Decision, Limit, LimitState

POOL = struct.Struct("<BhdB")
"""What the pool answered, which of the accounts that were offered it chose, the wait in microseconds, a probe."""
_NONE, _ACQUIRED, _IMPOSSIBLE, _DISABLED = 0, 1, 2, 3


class AdmissionReplies:
    """Reads replies to what `calls` has packed."""

    def __init__(self, calls: AdmissionCalls) -> None:
        self._calls = calls

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
            self._calls.remember(one, index)
        return Admission(
            allowed=True,
            lease=one.lease if account else None,
            account_id=account.id if account else None,
            account=account.name if account else None,
            expires_in=plan.pool.lease_ttl if plan else 0.0,
            reservation=one.reservation,
            reserved=one.counters if one.reservation else (),
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
            account = self._calls.plan(pool).by_suffix.get(suffix) if pool is not None else None
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
