"""Threads for event loops: what asks Redis or SQL, and apart from that what waits for capacity; and what can't be awaited."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import lru_cache
from typing import TypeVar

from django.db import close_old_connections

T = TypeVar("T")
SHORT, WAITING = 8, 64
"""Threads of each kind; more callers than that wait for one of them."""


async def in_thread(work: Callable[[], T], *, waits: bool = False) -> T:
    """The result of `work`, which runs in a thread; `waits`: it may take as long as its caller has patience."""
    context = copy_context()
    return await asyncio.get_running_loop().run_in_executor(_pool(waits), lambda: context.run(_tidy, work))


def off_loop(work: Callable[[], T]) -> T:
    """The result of `work`, which asks SQL and is short. Where an event loop runs in this thread, another one does it and
    the loop stands still meanwhile: Django asks SQL in no thread with a loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return work()
    context = copy_context()
    return _aside().submit(lambda: context.run(_tidy, work)).result()


@lru_cache(maxsize=2)
def _pool(waits: bool) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(WAITING if waits else SHORT, "quotas-waiting" if waits else "quotas")


@lru_cache(maxsize=1)
def _aside() -> ThreadPoolExecutor:
    """Threads of their own: whoever waits for these may hold a lock that one of the others waits for."""
    return ThreadPoolExecutor(2, "quotas-aside")


def _forget() -> None:
    """A forked child has none of its parent's threads."""
    _pool.cache_clear()
    _aside.cache_clear()


os.register_at_fork(after_in_child=_forget)


def _tidy(work: Callable[[], T]) -> T:
    """As Django does around each request: connections that are broken or too old are closed."""
    close_old_connections()
    try:
        return work()
    finally:
        close_old_connections()
