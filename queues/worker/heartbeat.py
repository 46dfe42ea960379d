"""A worker's own row: that it lives, what it can take, what it did."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Collection

from queues.lifecycle.delivery import renew
from queues.models import WorkerProcess
from quotas import clock

HEARTBEAT_INTERVAL = 5.0
"""Seconds between two reports."""


class Heartbeat:
    """Tells SQL of this process. Every method raises what SQL raises."""

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
            },
        )  # fmt: skip

    def beat(self, held: Collection[int]) -> None:
        """Renew the claims of the jobs `held`, and be seen. A row that is gone (pruned while this machine slept) is
        written anew: a worker that nobody sees would take jobs while readiness and the dispatcher count it as dead."""
        now = clock.now()
        if held:
            renew(self.name, held, now)
        seen = {
            "seen_at": now, "stopped_at": None, "busy": len(held), "lost_places": self._lost_places(),
            "jobs_done": self.done, "jobs_failed": self.failed,
        }  # fmt: skip
        if not WorkerProcess.objects.filter(name=self.name).update(**seen):
            self.begin()
            WorkerProcess.objects.filter(name=self.name).update(**seen)

    def end(self) -> None:
        WorkerProcess.objects.filter(name=self.name).update(
            stopped_at=clock.now(), busy=0, jobs_done=self.done, jobs_failed=self.failed
        )
