"""What the leading dispatcher does on the side, each at its own pace."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime

import structlog

from queues import settlement
from queues.maintenance import parcel_cleaner, pruner, reconciler
from queues.services import auto_replay, bulk_actions, intake, recurring
from queues.states import GroupKey
from quotas.engine.errors import LimiterUnavailable
from quotas.services import adaptive, health, rollups

log = structlog.get_logger(__name__)


class Maintenance:
    """Runs each task when it is due. A task gets SQL's time; what it raises ends the cycle and it is tried again."""

    def __init__(self) -> None:
        self._reconciler = reconciler.Reconciler()
        self._health_log = health.HealthLog()
        self._sampler = rollups.Sampler()
        self._controller = adaptive.Controller()
        self._tasks: list[tuple[float, Callable[[datetime], object]]] = [
            (2.0, self._reconciler.run),
            (0.5, _bulk_actions),
            (1.0, recurring.submit_due),
            (1.0, intake.finish_orphans),
            (pruner.pace(), pruner.prune),
            (15.0, parcel_cleaner.sweep),
            (2.0, _retry_unsettled),
            (15.0, auto_replay.replay_due),
            (5.0, self._keep_books),
            (1.0, self._adapt),
        ]
        self._next = [time.monotonic() + every for every, _ in self._tasks]

    def _keep_books(self, now: datetime) -> None:
        """Copy what Redis knows to SQL; where Redis is away there is nothing to copy, and jobs need not wait for it."""
        try:
            health.flush()
            self._health_log.run_due()
            self._sampler.sample()
        except LimiterUnavailable as error:
            log.warning("maintenance.engine_away", error=str(error))

    def _adapt(self, now: datetime) -> None:
        """Move adaptive limits; without Redis nothing is known of outcomes, and they stay where they are."""
        try:
            self._controller.run()
        except LimiterUnavailable as error:
            log.warning("maintenance.engine_away", error=str(error))

    def after_loss(self) -> set[GroupKey]:
        """Before a round: what Redis has lost comes first. The groups into which something came back."""
        return self._reconciler.after_loss()

    def run_due(self, now: datetime) -> None:
        for position, (every, task) in enumerate(self._tasks):
            if time.monotonic() >= self._next[position]:
                task(now)
                self._next[position] = time.monotonic() + every

    def due_in(self) -> float:
        """Seconds until the next task."""
        return max(min(self._next) - time.monotonic(), 0.0)


def _retry_unsettled(now: datetime) -> None:
    settlement.retry_unsettled()


def _bulk_actions(now: datetime) -> None:
    bulk_actions.process_next_slice(now)
