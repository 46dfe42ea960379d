"""The threads of the web process: for requests that Django answers, and for blocking calls of event-loop code."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

from controlplane.http.kept_connections import with_kept_connections
from quotas.runtime.kept_connections import keep
from quotas.runtime.threads import ThreadPools

T = TypeVar("T")
DJANGO = min(8, 2 * (os.cpu_count() or 1) + 1)
"""Requests that Django answers at a time, per process."""
SUBMITS = DJANGO
"""Requests that submit jobs at a time, per process."""


class Threads(ThreadPools):
    """Four pools, so that callers that wait for capacity and large bulks delay neither pages nor checks."""

    def __init__(self) -> None:
        super().__init__("front")
        self.django = ThreadPoolExecutor(DJANGO, "django")
        self._submits = ThreadPoolExecutor(SUBMITS, "submits", initializer=keep)

    def submit(self, work: Callable[[], T]) -> Awaitable[T]:
        """Run what submits jobs."""
        context = copy_context()
        return asyncio.get_running_loop().run_in_executor(self._submits, context.run, with_kept_connections, work)

    def join(self) -> None:
        """Wait until requests of Django and short calls have ended; nothing new begins."""
        for pool in (self.django, self._submits, self._short):
            pool.shutdown(wait=True)

    def close(self) -> None:
        """Start nothing new. Running calls are not waited for."""
        super().close()
        for pool in (self.django, self._submits):
            pool.shutdown(wait=False, cancel_futures=True)
