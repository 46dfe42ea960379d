"""Accounts for callers on an event loop: waiting takes no thread, and a caller that goes away keeps no account."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from functools import partial

from quotas.engine.errors import LimiterUnavailable
from quotas.engine.redis.pipeline import InThread
from quotas.engine.types import Admission, AdmitRequest, CallOutcome
from quotas.runtime.connection import accounts
from quotas.services import accounts as pools
from quotas.services import deferred_settlement, unanswered


async def acquire(
    name: str,
    cost: Mapping[str, int] | None = None,
    *,
    priority: int = 5,
    key: str = "",
    model: str = "",
    max_wait: float = 0.0,
    project: str | None = None,
    in_thread: InThread,
) -> Admission:
    """As `pools.acquire`; `in_thread` runs each single question. Cancelled, it returns what it was granted."""
    deadline = time.monotonic() + max_wait
    while True:
        request = await in_thread(
            lambda: pools.request_for(name, cost, priority=priority, key=key, model=model, project=project)
        )
        admission = await _admit_within(request, deadline - time.monotonic(), in_thread)
        wait = pools.next_try(admission, deadline - time.monotonic())
        if wait is None:
            return admission
        await asyncio.sleep(wait)


async def _admit_within(request: AdmitRequest, seconds: float, in_thread: InThread) -> Admission:
    """As `pools.admit_within`."""
    repeated = pools.Repeated(request, seconds)
    while True:
        asked = asyncio.ensure_future(_awaited(in_thread, partial(pools.admit, repeated.request)))
        try:
            return await asyncio.shield(asked)
        except asyncio.CancelledError:
            asked.add_done_callback(lambda done: _undo(done, repeated.request, in_thread))
            raise
        except LimiterUnavailable as error:
            await asyncio.sleep(repeated.pause(error))


async def release_unused(admission: Admission, in_thread: InThread) -> None:
    """Settle a lease whose caller is gone: no call was made."""
    lease = admission.lease
    if lease is not None:
        await in_thread(
            lambda: deferred_settlement.settled(
                f"lease {lease[:6]}..",
                lambda: accounts().settle(lease, CallOutcome("unused")),
                life=admission.expires_in,
            )
        )


async def _awaited(in_thread: InThread, work: Callable[[], Admission]) -> Admission:
    return await in_thread(work)


_releasing: set[asyncio.Future[None]] = set()


def _undo(asked: asyncio.Future[Admission], request: AdmitRequest, in_thread: InThread) -> None:
    if asked.cancelled():
        return
    error = asked.exception()
    if isinstance(error, LimiterUnavailable) and request.token:
        unanswered.return_admission(request, error)
    if error is not None or not asked.result().allowed:
        return
    task = asyncio.ensure_future(release_unused(asked.result(), in_thread))
    _releasing.add(task)
    task.add_done_callback(_releasing.discard)
