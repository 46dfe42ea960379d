"""A worker's row in SQL: when it was last seen, how many jobs it can run, how many it has run."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Collection
from pathlib import Path

from django.conf import settings

from queues.lifecycle.delivery import renew
from queues.models import WorkerProcess
from quotas import clock

HEARTBEAT_INTERVAL = 5.0
"""Seconds between two reports."""

STATM = Path("/proc/self/statm")


class Heartbeat:
    """Writes the row of this process. Every method raises what SQL raises."""

    def __init__(self, name: str, lane: str, places: int, lost_places: Callable[[], int] = lambda: 0) -> None:
        self.name = name
        self.lane = lane
        self.places = places
        self._lost_places = lost_places
        self.done = 0
        self.failed = 0

    def begin(self) -> None:
        now = clock.now()
        WorkerProcess.objects.update_or_create(
            name=self.name,
            defaults={
                "host": socket.gethostname(), "pid": os.getpid(), "lane": self.lane, "places": self.places,
                "busy": 0, "lost_places": 0, "started_at": now, "seen_at": now, "stopped_at": None,
                "memory": resident_memory(), "version": getattr(settings, "VERSION", ""),
            },
        )  # fmt: skip

    def beat(self, running: Collection[int]) -> None:
        """Renew the claims of the `running` jobs and write the time. A row that was deleted (pruned while this machine
        slept) is created again: without it readiness and the dispatcher count a working process as dead."""
        now = clock.now()
        if running:
            renew(self.name, running, now)
        seen = {
            "seen_at": now, "stopped_at": None, "busy": min(len(running), self.places), "lost_places": self._lost_places(),
            "jobs_done": self.done, "jobs_failed": self.failed, "memory": resident_memory(),
        }  # fmt: skip
        if not WorkerProcess.objects.filter(name=self.name).update(**seen):
            self.begin()
            WorkerProcess.objects.filter(name=self.name).update(**seen)

    def end(self) -> None:
        WorkerProcess.objects.filter(name=self.name).update(
            stopped_at=clock.now(), busy=0, jobs_done=self.done, jobs_failed=self.failed
        )


def resident_memory() -> int:
    """Bytes in memory; 0 where the system does not say."""
    try:
        pages = int(STATM.read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
