"""Account pools for Python callers: `from quotas import pools`.

with pools.get("llm").acquire(tokens=800, max_wait=5) as lease:
    response = client.post(lease.base_url + "/v1/chat", headers=lease.auth_headers, ...)
    lease.settle_response(response)

pools.get("llm").call(fn, tokens=800, request_id="chat_123", on_status=print)   # fn(lease) -> response
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TypeVar

import structlog

from quotas.engine.account_state import AccountState
from quotas.engine.priorities import rank
from quotas.engine.types import Admission, AdmitRequest
from quotas.errors import CostExceedsLimit, LimiterUnavailable, NoAccountAvailable, PoolDisabled, QuotaError
from quotas.runtime.connection import accounts
from quotas.runtime.threads import in_thread, off_loop
from quotas.services import accounts as service
from quotas.services.account_lease import Lease, lease_of
from quotas.services.call_attempt import Attempt, answered, failed, no_account
from quotas.snapshot import resolve
from quotas.upstream.call import CallRetry, CallStatus, units

R = TypeVar("R")
DEFAULT_ATTEMPTS = 5
DEFAULT_CALL_WAIT = 60.0
OnStatus = Callable[[CallStatus], object]
"""Called as a call proceeds. For `call_async` it may be a coroutine function. Its exceptions are logged only."""

log = structlog.get_logger(__name__)


def get(name: str, project: str | None = None) -> Pool:
    """The pool of that name; on an event loop too. `project`: for whom it is used, so that pools which are for other
    projects are neither found nor fallen back to. Raises `UnknownPool`."""
    off_loop(lambda: resolve.pool_config(name, project))
    return Pool(name, project)


class Pool:
    """A pool by its name; what it is made of may change at any time."""

    def __init__(self, name: str, project: str | None = None) -> None:
        self.name = name
        self.project = project

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
        """Acquire an account, waiting up to `max_wait` seconds; a context manager. `model`: the provider's model that is
        called, so that a refusal of one model does not block another.

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
            project=self.project,
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
        """`acquire` for `async with`; waiting occupies no thread."""
        asked = units(cost, tokens, requests)
        deadline = time.monotonic() + max_wait
        while True:
            request = self._request(asked, rank(priority), str(key), model)
            admission, lease = await self._admit_async(request, deadline - time.monotonic())
            wait = service.next_try(admission, deadline - time.monotonic())
            if wait is None:
                break
            await asyncio.sleep(wait)
        lease = lease or self._lease(admission)
        try:
            yield lease
        except BaseException as error:
            acquired, raised = lease, error
            await in_thread(lambda: acquired.end(raised))
            raise
        await in_thread(lambda: lease.end(None))

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
        itself, that counts. `max_wait`: seconds for all waiting. `on_status` is called on rate limits, retries,
        recovery and giving up. Raises `CallFailed` (with the last `response`), what `fn` raised in the last attempt,
        and what `acquire` raises.
        """
        retry = CallRetry(self.name, request_id, attempts, max_wait, on_status)
        asked = units(cost, tokens, requests)
        last: Attempt[R] | None = None
        while True:
            try:
                request = self._request(asked, rank(priority), str(key), model, retry)
                admission = service.admit_within(request, retry.left())
                lease = self._lease_of(admission, retry.token)
            except QuotaError as refusal:
                return no_account(retry, refusal, last)
            if lease is None:
                time.sleep(retry.wait_for_account(admission))
                continue
            try:
                last = answered(lease, fn(lease))
            except Exception as raised:  # noqa: BLE001 - the caller's code may raise anything: it settles the lease
                last = failed(lease, raised)
            except BaseException as raised:
                lease.end(raised)
                raise
            wait = retry.after_attempt(last.outcome, lease)
            if wait is None:
                return last.finish(retry)
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
        """`call` for a coroutine function; waiting occupies no thread."""
        unreported: list[CallStatus] = []
        retry = CallRetry(self.name, request_id, attempts, max_wait, unreported.append)
        asked = units(cost, tokens, requests)
        last: Attempt[R] | None = None
        try:
            while True:
                try:
                    request = self._request(asked, rank(priority), str(key), model, retry)
                    admission, lease = await self._admit_async(request, retry.left(), retry.token)
                except QuotaError as refusal:
                    return no_account(retry, refusal, last)
                wait: float | None
                if lease is None:
                    wait = retry.wait_for_account(admission)
                else:
                    last = await self._attempt_async(fn, lease)
                    wait = retry.after_attempt(last.outcome, lease)
                if last is not None and wait is None:
                    return last.finish(retry)
                await _report_statuses(unreported, on_status)
                await asyncio.sleep(wait or 0.0)
        finally:
            await _report_statuses(unreported, on_status)

    @staticmethod
    async def _attempt_async(fn: Callable[[Lease], Awaitable[R]], lease: Lease) -> Attempt[R]:
        try:
            response = await fn(lease)
        except Exception as error:  # noqa: BLE001 - the caller's code may raise anything: it settles the lease
            raised = error
            return await in_thread(lambda: failed(lease, raised))
        except BaseException as error:
            lease.end(error)  # cancelled: no further await
            raise
        return await in_thread(lambda: answered(lease, response))

    def states(self) -> list[AccountState]:
        """The present state of every account."""
        return off_loop(lambda: accounts().states(resolve.pool_spec(self.name)))

    async def _admit_async(
        self, request: AdmitRequest, seconds: float, call: str = ""
    ) -> tuple[Admission, Lease | None]:
        """One admission and its lease, waiting up to `seconds` for Redis where it does not answer. `call` stands for the
        call with all of its attempts."""
        repeated = service.Repeated(request, seconds)
        while True:
            try:
                return await self._admit_in_thread(repeated.request, call)
            except LimiterUnavailable as error:
                await asyncio.sleep(repeated.pause(error))

    async def _admit_in_thread(self, request: AdmitRequest, call: str) -> tuple[Admission, Lease | None]:
        """One admission in a thread, and its lease. Cancelled meanwhile, it returns what it was granted."""
        lock, gone, granted = threading.Lock(), False, None

        def admit() -> tuple[Admission, Lease | None]:
            nonlocal granted
            admission = service.admit(request)
            lease = self._lease_of(admission, call)
            with lock:
                granted = lease
                if gone and lease is not None:
                    lease.give_back()
            return admission, lease

        try:
            return await in_thread(admit)
        except asyncio.CancelledError:
            with lock:
                gone = True
                if granted is not None:
                    granted.give_back()
            raise

    def _request(
        self, cost: Mapping[str, int], priority: int, key: str, model: str, retry: CallRetry | None = None
    ) -> AdmitRequest:
        without = retry.refused_by if retry is not None else ""
        return service.request_for(
            self.name, cost, priority=priority, key=key, model=model, without=without, project=self.project
        )

    def _lease_of(self, admission: Admission, request: str = "") -> Lease | None:
        """The lease; None where one has to wait. Raises where no wait would help."""
        if admission.impossible:
            raise CostExceedsLimit(detail=self.name)
        if admission.disabled:
            raise PoolDisabled(self.name)
        return lease_of(admission, self.name, request, self.project) if admission.allowed else None

    def _lease(self, admission: Admission) -> Lease:
        lease = self._lease_of(admission)
        if lease is None:
            raise NoAccountAvailable(admission.retry_after, admission.reasons, self.name)
        return lease


async def _report_statuses(unreported: list[CallStatus], on_status: OnStatus | None) -> None:
    """Pass the statuses that were not reported yet to `on_status`, which may be a coroutine function."""
    while unreported:
        status = unreported.pop(0)
        if on_status is None:
            continue
        try:
            answer = on_status(status)
            if inspect.isawaitable(answer):
                await answer
        except Exception:
            log.exception("call.on_status_failed", pool=status.pool)
