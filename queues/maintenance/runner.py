"""The leading dispatcher's periodic tasks, each at its own interval."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime

from queues import settlement
from queues.maintenance import parcel_cleaner, pruner, reconciler
from queues.services import auto_replay, bulk_actions, intake, recurring
from queues.states import GroupKey
from quotas import events
from quotas.engine.errors import LimiterUnavailable
from quotas.services import adaptive, health, rollups

SLACK = 0.2
"""Seconds that a task may run early."""
UNFINISHED = object()
"""The result of a task that has more to do."""
UNFINISHED_PAUSE = 0.5
"""Seconds between two parts of such a task."""


class Maintenance:
    """Runs each task when it is due. A task gets SQL's time; an exception ends the cycle, and the task is tried again."""

    def __init__(self) -> None:
        self._reconciler = reconciler.Reconciler()
        self._health_log = health.HealthLog()
        self._sampler = rollups.Sampler()
        self._controller = adaptive.Controller()
        self._tasks: list[tuple[float, Callable[[datetime], object]]] = [
            (2.0, self._reconciler.run),
            (1.0, _bulk_actions),
            (1.0, self._submit_recurring),
            (1.0, intake.finish_orphans),
            (pruner.pace(), pruner.prune),
            (15.0, parcel_cleaner.sweep),
            (2.0, _retry_unsettled),
            (15.0, auto_replay.replay_due),
            (5.0, self._copy_to_sql),
            (1.0, self._adapt),
        ]
        self._next = [time.monotonic() + every for every, _ in self._tasks]
        self.next_tick: datetime | None = None
        """When the next recurring job is due, as of the last look."""

    def _submit_recurring(self, now: datetime) -> None:
        recurring.submit_due(now)
        self.next_tick = recurring.next_at()

    def _copy_to_sql(self, now: datetime) -> None:
        """Copy states and usage from Redis to SQL. While Redis is unavailable this is skipped, so that jobs do not wait for it."""
        try:
            health.flush()
            self._health_log.run_due()
            self._sampler.sample()
        except LimiterUnavailable as error:
            events.emit(events.ServiceUnavailable("maintenance", "usage and health", str(error)))

    def _adapt(self, now: datetime) -> None:
        """Adapt limits to outcomes; without Redis outcomes are unknown, and limits stay as they are."""
        try:
            self._controller.run()
        except LimiterUnavailable as error:
            events.emit(events.ServiceUnavailable("maintenance", "adaptive limits", str(error)))

    def after_loss(self) -> set[GroupKey]:
        """Release again what Redis has lost; before each round. Returns the groups of these jobs."""
        return self._reconciler.after_loss()

    def run_due(self, now: datetime) -> None:
        """Run the tasks that are due, and those that will be within `SLACK`: so the leader wakes up once for all of them
        and not for each by itself."""
        tick = self.next_tick is not None and self.next_tick <= now
        for position, (every, task) in enumerate(self._tasks):
            if time.monotonic() >= self._next[position] - SLACK or (tick and task == self._submit_recurring):
                unfinished = task(now) is UNFINISHED
                self._next[position] = time.monotonic() + (UNFINISHED_PAUSE if unfinished else every)

    def make_all_due(self) -> None:
        """Run each task with the next `run_due`, whenever it last ran."""
        self._next = [time.monotonic()] * len(self._tasks)

    def due_in(self) -> float:
        """Seconds until the next task."""
        return max(min(self._next) - SLACK / 2 - time.monotonic(), 0.0)


def _retry_unsettled(now: datetime) -> None:
    settlement.retry_unsettled()


def _bulk_actions(now: datetime) -> object:
    return UNFINISHED if bulk_actions.process_next_slice(now) else None
