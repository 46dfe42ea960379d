"""Charges whose answer was lost, because Redis did not answer in time: returned when it answers again.

A server that stopped runs later what was sent to it, though no caller waits for the answer then. A request that was
refused as `limiter-unavailable` would be charged, and would occupy a slot until its lease ends.

    no answer -> refused -> once a second: was it charged, by its token? -> all of it is returned
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from quotas.engine.errors import LimiterUnavailable, NotAsked
from quotas.engine.types import AdmitRequest, CallOutcome, Limit
from quotas.runtime.connection import accounts, limiter
from quotas.services.deferred_settlement import late

UNUSED = CallOutcome("unused")


def return_admission(request: AdmitRequest, error: LimiterUnavailable) -> None:
    """Return what an admission with a token may have charged, in the background."""
    assert request.token and request.pool is not None
    if not isinstance(error, NotAsked):
        what = f"admission to {request.pool.name}"
        late.repeat(what, lambda: _return_admission(request), str(error), life=request.pool.lease_ttl)


def return_leases(error: LimiterUnavailable) -> None:
    """Return the leases that an admission without a token may have made, in the background."""
    for lease in error.leases:
        late.repeat(f"lease {lease[:6]}..", partial(accounts().settle, lease, UNUSED), str(error))


def return_check(limits: Callable[[], Sequence[Limit]], token: str, error: LimiterUnavailable) -> None:
    """Return what a check with a token of our own may have charged, in the background; `limits` are those of the check."""
    if not isinstance(error, NotAsked):
        late.repeat(f"check {token[:6]}..", lambda: _return_check(limits(), token), str(error))


def _return_admission(request: AdmitRequest) -> None:
    found = accounts().admitted(request)
    if found is None:
        return
    if found.lease is not None:
        accounts().settle(found.lease, UNUSED)
    if found.reservation is not None:
        limiter().settle(found.reservation, dict.fromkeys([*request.cost, "requests"], 0))


def _return_check(limits: Sequence[Limit], token: str) -> None:
    found = limiter().charged(limits, token)
    if found is not None and found.reservation is not None:
        limiter().settle(found.reservation, dict.fromkeys([limit.unit for limit in limits], 0))
