"""The threads of the web process: for requests that Django answers, and for blocking calls of event-loop code."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

from quotas.runtime.threads import ThreadPools

DJANGO = min(8, 2 * (os.cpu_count() or 1) + 1)
"""Requests that Django answers at a time, per process."""


class Threads(ThreadPools):
    """Three pools, so that callers that wait for capacity delay neither pages nor checks."""

    def __init__(self) -> None:
        super().__init__("front")
        self.django = ThreadPoolExecutor(DJANGO, "django")

    def join(self) -> None:
        """Wait until requests of Django and short calls have ended; nothing new begins."""
        for pool in (self.django, self._short):
            pool.shutdown(wait=True)

    def close(self) -> None:
        """Start nothing new. Running calls are not waited for."""
        super().close()
        self.django.shutdown(wait=False, cancel_futures=True)
