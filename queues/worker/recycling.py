"""When a worker stops to be replaced: after a number of jobs, above a size of memory, or with a stuck thread.

The first two are off unless set by `SLUICE_MAX_JOBS` and `SLUICE_MAX_MEMORY` (MiB, for each worker process and for each
forked job) or the options of `rqworker`. Whatever keeps workers running (`up`, systemd, an orchestrator) starts the
next one.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from django.conf import settings

LOOK = 0.5
"""Seconds between two readings of the memory."""
HARD_LIMIT_FACTOR = 2.0
"""Above the limit times this the worker waits for no running job."""


def resident(pid: int | None = None) -> float:
    """Resident memory of a process (None: this one) in MiB; 0 if the system does not say, or if it has ended."""
    try:
        with open(f"/proc/{pid or 'self'}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    except (OSError, IndexError, ValueError):
        return 0.0


@dataclass
class Recycling:
    """A worker's own limits; 0 means none. `jobs` varies by a tenth, so that not all workers restart at once."""

    jobs: int = field(default_factory=lambda: settings.MAX_JOBS)
    memory: float = field(default_factory=lambda: settings.MAX_MEMORY)
    taken: int = 0
    stuck: Callable[[], int] = lambda: 0
    """Threads of this process that no interrupt ends; only the end of the process does."""
    _checked_at: float = float("-inf")
    _resident: float = 0.0

    def __post_init__(self) -> None:
        self._spread = random.uniform(0.9, 1.1)

    def why(self) -> str:
        """Why this worker should stop; empty if it should not."""
        return (
            "jobs" if self.done() else "memory" if self.exceeds_memory() else "a stuck thread" if self.stuck() else ""
        )

    def done(self) -> bool:
        """Whether it has taken as many jobs as it should."""
        return self.jobs > 0 and self.taken >= max(round(self.jobs * self._spread), 1)

    def exceeds_memory(self, times: float = 1.0) -> bool:
        """Whether this process uses more memory than `times` its limit."""
        if self.memory <= 0:
            return False
        if time.monotonic() - self._checked_at >= LOOK:
            self._resident, self._checked_at = resident(), time.monotonic()
        return self._resident > self.memory * times

    def child_exceeds_memory(self, pid: int) -> bool:
        """Whether a forked job uses more memory than the limit."""
        return self.memory > 0 and resident(pid) > self.memory
