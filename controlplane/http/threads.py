"""Threads for what blocks: SQL, Redis, Django."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from django.db import close_old_connections

T = TypeVar("T")
DJANGO = min(8, 2 * (os.cpu_count() or 1) + 1)
"""Requests that Django answers at a time, per process."""
SHORT = 8
"""Calls of services that end within a Redis timeout or a query."""
WAITING = 64
"""Single questions of callers that wait for capacity (`max_wait`), and the few of them whom only Django can answer."""


class Threads:
    """Three pools, so that callers who wait for capacity delay neither pages nor checks."""

    def __init__(self) -> None:
        self.django = ThreadPoolExecutor(DJANGO, "django")
        self._short = ThreadPoolExecutor(SHORT, "front")
        self.patient = ThreadPoolExecutor(WAITING, "waiting")

    def short(self, work: Callable[[], T]) -> Awaitable[T]:
        """Run what ends soon."""
        return asyncio.get_running_loop().run_in_executor(self._short, _tidy, work)

    def waiting(self, work: Callable[[], T]) -> Awaitable[T]:
        """Run a single question of a caller that waits: it may not delay what others ask."""
        return asyncio.get_running_loop().run_in_executor(self.patient, _tidy, work)

    def join(self) -> None:
        """Wait until requests of Django and short calls have ended; nothing new begins."""
        for pool in (self.django, self._short):
            pool.shutdown(wait=True)

    def close(self) -> None:
        """Take nothing new; what runs is not waited for."""
        for pool in (self.django, self._short, self.patient):
            pool.shutdown(wait=False, cancel_futures=True)


def _tidy(work: Callable[[], T]) -> T:
    """As Django does around each request: connections that are broken or too old are closed."""
    close_old_connections()
    try:
        return work()
    finally:
        close_old_connections()
