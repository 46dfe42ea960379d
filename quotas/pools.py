"""Account pools for Python callers: `from quotas import pools`.

with pools.get("llm").acquire(tokens=800, max_wait=5) as lease:
    response = client.post(lease.base_url + "/v1/chat", headers=lease.auth_headers, ...)
    lease.settle_response(response)

pools.get("llm").call(fn, tokens=800, request_id="chat_123", on_status=print)   # fn(lease) -> response
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

from quotas import policies
from quotas.calls import CallFailed, CallStatus, Plan, rank, units
from quotas.connection import accounts
from quotas.engine.types import AccountState, Admission, Outcome
from quotas.errors import CostExceedsLimit, NoAccountAvailable, PoolDisabled
from quotas.leases import Lease, lent, status_of
from quotas.services import pools as service
from quotas.threads import in_thread, off_loop

R = TypeVar("R")
DEFAULT_ATTEMPTS = 5
DEFAULT_CALL_WAIT = 60.0
OnStatus = Callable[[CallStatus], None]


def get(name: str) -> Pool:
    """The pool of that name. Raises `UnknownPool`."""
    policies.pool_config(name)
    return Pool(name)


class Pool:
    """A pool by its name; what it is made of may change at any time."""

    def __init__(self, name: str) -> None:
        self.name = name

    def acquire(
        self,
        *,
        tokens: int | None = None,
        requests: int | None = None,
        cost: Mapping[str, int] | None = None,
        priority: int | str = 5,
        max_wait: float = 0.0,
        key: str | int = "",
        model: str = "",
    ) -> Lease:
        """Lend an account, waiting up to `max_wait` seconds; a context manager. `model`: what of the provider's is asked
        for, so that a refusal of one model holds up no other.

        Raises `NoAccountAvailable` (with `retry_after` and `reasons`), `CostExceedsLimit`, `PoolDisabled`,
        `LimiterUnavailable`.
        """
        admission = service.acquire(
            self.name,
            units(cost, tokens, requests),
            priority=rank(priority),
            key=str(key),
            model=model,
            max_wait=max_wait,
        )
        return self._lease(admission)

    @asynccontextmanager
    async def acquire_async(
        self,
        *,
        tokens: int | None = None,
        requests: int | None = None,
        cost: Mapping[str, int] | None = None,
        priority: int | str = 5,
        max_wait: float = 0.0,
        key: str | int = "",
        model: str = "",
    ) -> AsyncIterator[Lease]:
        """`acquire` for `async with`; waiting holds no thread."""
        asked = units(cost, tokens, requests)
        deadline = time.monotonic() + max_wait
        while True:
            admission = await self._admit_async(asked, rank(priority), str(key), model)
            wait = service.next_try(admission, deadline - time.monotonic())
            if wait is None:
                break
            await asyncio.sleep(wait)
        lease = self._lease(admission)
        try:
            yield lease
        except BaseException as error:
            await in_thread(partial(lease.end, error))
            raise
        await in_thread(partial(lease.end, None))

    def call(
        self,
        fn: Callable[[Lease], R],
        *,
        tokens: int | None = None,
        requests: int | None = None,
        cost: Mapping[str, int] | None = None,
        priority: int | str = 5,
        key: str | int = "",
        model: str = "",
        request_id: str = "",
        on_status: OnStatus | None = None,
        attempts: int = DEFAULT_ATTEMPTS,
        max_wait: float = DEFAULT_CALL_WAIT,
    ) -> R:
        """Call `fn(lease)` until it goes through: with another account after a rate limit, with backoff after faults.

        What `fn` returns settles the lease where it has `status_code` and `headers`; where `fn` has settled it
        itself, that counts. `max_wait`: seconds for all waiting. `on_status` is told of rate limits, retries,
        recovery and giving up. Raises `CallFailed` (with the last `response`), what `fn` raised in the last attempt,
        and what `acquire` raises.
        """
        plan = Plan(self.name, request_id, attempts, max_wait, on_status)
        asked = units(cost, tokens, requests)
        while True:
            admission = service.admit(
                service.request_for(self.name, asked, priority=rank(priority), key=str(key), model=model)
            )
            if not admission.allowed:
                time.sleep(plan.before(self._waitable(admission)))
                continue
            lease, response, error = self._lease(admission), None, None
            try:
                response = fn(lease)
                outcome = _settled(lease, response)
            except Exception as raised:
                outcome, error = _failed(lease, raised), raised
            except BaseException as raised:
                lease.end(raised)
                raise
            wait = plan.after(outcome, lease.account, outcome.refuses_account and self._in_service())
            if wait is None:
                return _finish(plan, outcome, response, error)
            time.sleep(wait)

    async def call_async(
        self,
        fn: Callable[[Lease], Awaitable[R]],
        *,
        tokens: int | None = None,
        requests: int | None = None,
        cost: Mapping[str, int] | None = None,
        priority: int | str = 5,
        key: str | int = "",
        model: str = "",
        request_id: str = "",
        on_status: OnStatus | None = None,
        attempts: int = DEFAULT_ATTEMPTS,
        max_wait: float = DEFAULT_CALL_WAIT,
    ) -> R:
        """`call` for a coroutine function; waiting holds no thread."""
        plan = Plan(self.name, request_id, attempts, max_wait, on_status)
        asked = units(cost, tokens, requests)
        while True:
            admission = await self._admit_async(asked, rank(priority), str(key), model)
            if not admission.allowed:
                await asyncio.sleep(plan.before(self._waitable(admission)))
                continue
            lease, response, error = self._lease(admission), None, None
            try:
                response = await fn(lease)
                outcome = await in_thread(partial(_settled, lease, response))
            except Exception as raised:
                outcome, error = await in_thread(partial(_failed, lease, raised)), raised
            except BaseException as raised:
                off_loop(partial(lease.end, raised))  # cancelled: no further await
                raise
            others = outcome.refuses_account and await in_thread(self._in_service)
            wait = plan.after(outcome, lease.account, others)
            if wait is None:
                return _finish(plan, outcome, response, error)
            await asyncio.sleep(wait)

    def states(self) -> list[AccountState]:
        """Every account as it stands."""
        return accounts().states(policies.pool_spec(self.name))

    async def _admit_async(self, cost: Mapping[str, int], priority: int, key: str, model: str) -> Admission:
        def admit() -> Admission:
            return service.admit(service.request_for(self.name, cost, priority=priority, key=key, model=model))

        return await in_thread(admit)

    def _in_service(self) -> bool:
        """Whether the pool, or one that it falls back to, has an account that is not disabled."""
        request = service.request_for(self.name)
        assert request.pool is not None
        pools = (request.pool, *request.fallbacks)
        return any(state.state != "disabled" for pool in pools for state in accounts().states(pool))

    def _lease(self, admission: Admission) -> Lease:
        if not admission.allowed:
            self._waitable(admission)
            raise NoAccountAvailable(admission.retry_after, admission.reasons, self.name)
        return lent(admission, self.name)

    def _waitable(self, admission: Admission) -> Admission:
        """Raises where no wait would help."""
        if admission.impossible:
            raise CostExceedsLimit(detail=self.name)
        if admission.disabled:
            raise PoolDisabled(self.name)
        return admission


def _settled(lease: Lease, response: Any) -> Outcome:
    """Settle by what `fn` returned, unless it has settled itself."""
    if lease.outcome is None and status_of(response) is not None:
        return lease.settle_response(response)
    lease.end(None)
    assert lease.outcome is not None
    return lease.outcome


def _failed(lease: Lease, error: Exception) -> Outcome:
    lease.end(error)
    assert lease.outcome is not None
    return lease.outcome


def _finish(plan: Plan, outcome: Outcome, response: Any, error: Exception | None) -> Any:
    if error is not None:
        raise error
    if outcome.category == "ok":
        return response
    raise CallFailed(outcome.category, plan.made, response)
