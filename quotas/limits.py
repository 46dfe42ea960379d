"""Limits for Python callers: `from quotas import limits`.

decision = limits.check(project="acme", user="u-17", cost={"tokens": 800})   # truthy when allowed
with limits.reserve(project="acme", cost={"tokens": 800}) as reservation:
    ...
    reservation.settle(tokens=512)
decision = await limits.check_async(project="acme", max_wait=5)                # and `async with limits.reserve_async(..)`
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager

from quotas.engine.types import Decision, Settlement
from quotas.errors import CostExceedsLimit, LimitExceeded
from quotas.runtime.threads import in_thread
from quotas.services import limits as service
from quotas.services import outcomes, units
from quotas.services.limits import Check
from quotas.services.limits_async import check_waiting
from quotas.services.prepaid import PolicyLease

ACTOR = "python"


def check(
    *,
    project: str | None = None,
    user: str | None = None,
    ip: str | None = None,
    endpoint: str | None = None,
    method: str | None = None,
    keys: Mapping[str, str] | None = None,
    cost: int | Mapping[str, int] | None = None,
    dry_run: bool = False,
    max_wait: float = 0.0,
) -> Decision:
    """Decide, and charge all limits that apply or none. The answer is truthy when allowed.

    `cost`: a number of requests, or whole numbers by unit; None: what the cost rules say, else 1 request. `max_wait`:
    seconds to wait for capacity. Raises `UnknownProject`, `NetworkDenied`, `LimiterUnavailable`.
    """
    asked = _asked(project, user, ip, endpoint, method, keys, cost, dry_run, max_wait)
    return service.check(asked, actor=ACTOR)


async def check_async(
    *,
    project: str | None = None,
    user: str | None = None,
    ip: str | None = None,
    endpoint: str | None = None,
    method: str | None = None,
    keys: Mapping[str, str] | None = None,
    cost: int | Mapping[str, int] | None = None,
    dry_run: bool = False,
    max_wait: float = 0.0,
) -> Decision:
    """`check` for an event loop. Waiting occupies no thread, and charges nothing if it is cancelled."""
    asked = _asked(project, user, ip, endpoint, method, keys, cost, dry_run, max_wait)
    if max_wait and not dry_run:
        return await check_waiting(asked)
    return await in_thread(lambda: service.check(asked, actor=ACTOR))


class Reservation:
    """Units that were charged ahead. What is not settled when its block ends counts as it was reserved."""

    def __init__(self, decision: Decision, cost: Mapping[str, int] | None = None) -> None:
        self.decision = decision
        self._units = {*(cost or ()), *(state.unit for state in decision.limits)}
        self._ended = False
        self.settlement: Settlement | None = None
        self.later = False
        """In an `async with` block Redis is not called before its end."""
        self._actual: dict[str, int] = {}

    def settle(self, **actual: int) -> Settlement | None:
        """Settle with the actual use by unit: the difference is refunded or charged. The first call counts.

        None where the reservation has expired, so that nothing was changed, where Redis does not answer (it is settled
        when it does), and in `async with` before the block ends. Raises `UnknownUnit`, with nothing changed.
        """
        units.check(actual, self._units)
        if not self._actual:
            self._actual = actual
        return None if self.later else self.end()

    def end(self) -> Settlement | None:
        """Settle by the actual use that was given, once. Never raises: the work is done."""
        if not self._ended and self.decision.reservation is not None:
            self._ended = True
            self.settlement = service.settle_or_later(self.decision.reservation, self._actual)
        return self.settlement

    def report(
        self,
        *,
        status: int | None = None,
        error: str = "",
        latency: float | None = None,
        headers: object = None,
        dialect: str = "generic",
    ) -> list[str]:
        """Report the outcome of the call, for adaptive policies; see `limits.report`."""
        outcome = outcomes.outcome_of(status=status, error=error, latency=latency, headers=headers, dialect=dialect)
        return outcomes.of_policies((state.policy for state in self.decision.limits), outcome)


@contextmanager
def reserve(
    *,
    project: str | None = None,
    user: str | None = None,
    ip: str | None = None,
    endpoint: str | None = None,
    method: str | None = None,
    keys: Mapping[str, str] | None = None,
    cost: int | Mapping[str, int] | None = None,
    max_wait: float = 0.0,
) -> Iterator[Reservation]:
    """Charge ahead and settle inside of the block; slots of `concurrency` policies are occupied for as long as it runs.

    Raises `LimitExceeded` (with `retry_after` and `decision`), `CostExceedsLimit`, and what `check` raises.
    """
    asked = _asked(project, user, ip, endpoint, method, keys, cost, False, max_wait)
    reservation = _reserved(asked)
    try:
        yield reservation
    finally:
        reservation.end()


@asynccontextmanager
async def reserve_async(
    *,
    project: str | None = None,
    user: str | None = None,
    ip: str | None = None,
    endpoint: str | None = None,
    method: str | None = None,
    keys: Mapping[str, str] | None = None,
    cost: int | Mapping[str, int] | None = None,
    max_wait: float = 0.0,
) -> AsyncIterator[Reservation]:
    """`reserve` for `async with`. `settle` takes effect when the block ends."""
    asked = _asked(project, user, ip, endpoint, method, keys, cost, False, max_wait)
    if max_wait:
        reservation = _granted(await check_waiting(asked, reserve=True), asked)
    else:
        reservation = await in_thread(lambda: _reserved(asked))
    reservation.later = True
    try:
        yield reservation
    finally:
        await in_thread(reservation.end)


def _reserved(asked: Check) -> Reservation:
    return _granted(service.check(asked, actor=ACTOR, reserve=True), asked)


def _granted(decision: Decision, asked: Check) -> Reservation:
    if decision.impossible:
        raise CostExceedsLimit(decision)
    if not decision.allowed:
        raise LimitExceeded(decision.retry_after, decision)
    return Reservation(decision, asked.cost)


def report(
    *,
    project: str | None = None,
    user: str | None = None,
    ip: str | None = None,
    endpoint: str | None = None,
    method: str | None = None,
    keys: Mapping[str, str] | None = None,
    status: int | None = None,
    error: str = "",
    latency: float | None = None,
    headers: object = None,
    dialect: str = "generic",
    count: int = 1,
) -> list[str]:
    """Report the outcome of `count` calls, so that the adaptive policies that apply can move. Returns their names.

    `status` and `headers` of the answer, or `error` (`timeout`, `network`) where none came; `latency` in seconds;
    `dialect` says how the header fields are read (`quotas.engine.dialects.DIALECTS`). Costs no round trip. Raises
    `UnknownProject`, `NetworkDenied`.
    """
    asked = _asked(project, user, ip, endpoint, method, keys, None, False, 0.0)
    outcome = outcomes.outcome_of(status=status, error=error, latency=latency, headers=headers, dialect=dialect)
    return outcomes.report(asked, outcome, count)


def lease(
    *,
    project: str | None = None,
    user: str | None = None,
    ip: str | None = None,
    endpoint: str | None = None,
    method: str | None = None,
    keys: Mapping[str, str] | None = None,
    units: int = 100,
    unit: str = "requests",
    ttl: float = 10.0,
) -> PolicyLease:
    """Take units in blocks of at most `units` and spend them in memory; threads may share it.

    `lease.spend(n)` is a `Decision`; `close()`, or the end of a `with` block, refunds what was not spent. `ttl`:
    seconds that a block is spent from at most. Raises `NotDivisible` where a `concurrency` policy applies, and what
    `check` raises.
    """
    return PolicyLease(_asked(project, user, ip, endpoint, method, keys, None, False, 0.0), unit, units, ttl)


def _asked(
    project: str | None,
    user: str | None,
    ip: str | None,
    endpoint: str | None,
    method: str | None,
    keys: Mapping[str, str] | None,
    cost: int | Mapping[str, int] | None,
    dry_run: bool,
    max_wait: float,
) -> Check:
    units = service.cost_of(cost)
    named, subjects = service.text_of(user), service.texts_of(keys)
    return Check(project, named, ip, endpoint, method, subjects, units, dry_run, max_wait)
