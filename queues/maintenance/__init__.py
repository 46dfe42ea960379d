"""What the leading dispatcher does on the side, each at its own pace."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime

from queues.maintenance import pruner, reconciler
from queues.services import bulk, recurring
from quotas.services import health


class Maintenance:
    """Runs each task when it is due. A task gets SQL's time; what it raises ends the cycle and it is tried again."""

    def __init__(self) -> None:
        self._reconciler = reconciler.Reconciler()
        self._health_log = health.HealthLog()
        self._tasks: list[tuple[float, Callable[[datetime], object]]] = [
            (2.0, self._reconciler.run),
            (0.5, _bulk_actions),
            (1.0, recurring.submit_due),
            (60.0, pruner.prune),
            (5.0, self._keep_health),
        ]
        self._next = [time.monotonic() + every for every, _ in self._tasks]

    def _keep_health(self, now: datetime) -> None:
        health.flush()
        self._health_log.run_due()

    def run_due(self, now: datetime) -> None:
        for position, (every, task) in enumerate(self._tasks):
            if time.monotonic() >= self._next[position]:
                task(now)
                self._next[position] = time.monotonic() + every

    def due_in(self) -> float:
        """Seconds until the next task."""
        return max(min(self._next) - time.monotonic(), 0.0)


def _bulk_actions(now: datetime) -> None:
    bulk.go_on(now)
