"""Threads for event loops: for short questions to Redis or SQL, and apart from those for callers that wait for capacity."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import lru_cache
from typing import TypeVar

from django.db import close_old_connections

T = TypeVar("T")
SHORT, WAITING = 8, 64
"""Threads of each kind; more callers than that wait for one of them."""


class ThreadPools:
    """Two pools, so that callers that wait for capacity do not delay short calls."""

    def __init__(self, name: str) -> None:
        self._short = ThreadPoolExecutor(SHORT, name)
        self.patient = ThreadPoolExecutor(WAITING, f"{name}-waiting")
        """For calls that may take as long as their caller waits."""

    def short(self, work: Callable[[], T]) -> Awaitable[T]:
        """Run what ends within a Redis timeout or a query."""
        return _run_in(self._short, work)

    def waiting(self, work: Callable[[], T]) -> Awaitable[T]:
        """Run a call of a caller that waits for capacity."""
        return _run_in(self.patient, work)

    def close(self) -> None:
        """Start nothing new. Running calls are not waited for."""
        for pool in (self._short, self.patient):
            pool.shutdown(wait=False, cancel_futures=True)


def _run_in(pool: ThreadPoolExecutor, work: Callable[[], T]) -> Awaitable[T]:
    context = copy_context()
    return asyncio.get_running_loop().run_in_executor(pool, context.run, _with_fresh_connections, work)


async def in_thread(work: Callable[[], T], *, waits: bool = False) -> T:
    """The result of `work`, which runs in a thread of this process. `waits`: it may take as long as its caller waits."""
    pools = _pools()
    return await (pools.waiting if waits else pools.short)(work)


def off_loop(work: Callable[[], T]) -> T:
    """The result of `work`, which reads SQL and is short.

    Where an event loop runs in this thread, another thread does the work and the loop is blocked meanwhile: Django
    refuses to query SQL in a thread with a running loop.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return work()
    context = copy_context()
    return _aside().submit(context.run, _with_fresh_connections, work).result()


@lru_cache(maxsize=1)
def _pools() -> ThreadPools:
    return ThreadPools("quotas")


@lru_cache(maxsize=1)
def _aside() -> ThreadPoolExecutor:
    """Threads of their own: a caller of `off_loop` may have a lock that one of the other threads waits for."""
    return ThreadPoolExecutor(2, "quotas-aside")


def _after_fork() -> None:
    """A forked child has none of its parent's threads."""
    _pools.cache_clear()
    _aside.cache_clear()


os.register_at_fork(after_in_child=_after_fork)


def _with_fresh_connections(work: Callable[[], T]) -> T:
    """Close connections that are broken or too old, as Django does around each request."""
    close_old_connections()
    try:
        return work()
    finally:
        close_old_connections()
