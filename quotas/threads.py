"""Threads for event loops: what asks Redis or SQL, and apart from that what waits for capacity."""

from __future__ import annotations

import asyncio
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
    """The result of `work`, which may ask SQL: in a thread where an event loop runs in this one, else here.

    For calls that are short and rare enough to hold the loop up, or that can't be awaited.
    """
    if not _on_loop():
        return work()
    context = copy_context()
    return _pool(False).submit(lambda: context.run(_tidy, work)).result()


def _on_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


@lru_cache(maxsize=2)
def _pool(waits: bool) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(WAITING if waits else SHORT, "limits-waiting" if waits else "limits")


def _tidy(work: Callable[[], T]) -> T:
    """As Django does around each request: connections that are broken or too old are closed."""
    close_old_connections()
    try:
        return work()
    finally:
        close_old_connections()
