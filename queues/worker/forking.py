"""The worker of the lane `cpu`: a forked process for each job. Also where suspects run, so that they die alone."""

from __future__ import annotations

import time
from typing import Any

import structlog
from django.conf import settings
from django.db import DatabaseError, InterfaceError, close_old_connections
from rq.job import Job as RQJob
from rq.queue import Queue

from queues import settlement
from queues.deliveries import Claimed, Ended
from queues.worker import claim
from queues.worker.base import BaseJobWorker
from queues.worker.child import Child, cancelled, lost
from queues.worker.child_processes import default_signals_in_children
from queues.worker.delivery_end import end
from queues.worker.heartbeat import HEARTBEAT_INTERVAL, Heartbeat
from queues.worker.main_loop import take_over
from queues.worker.requeue import requeue_unfinished
from queues.worker.running import not_here, timed_out

log = structlog.get_logger(__name__)

DEFAULT_PLACES = settings.CPU_CONCURRENCY
"""Jobs at once. Above the number of cores on most machines: what died with a worker of the lane `io` waits for this
one, and most of that waits for others and not for the processor."""
LOOK = 0.05
"""Seconds between two looks at the children where nothing else is to be done."""
LOOK_FOR_CANCELS = 1.0


class ForkingWorker(BaseJobWorker):
    """An RQ worker that runs each job in a process of its own. It has no threads that a fork could catch in a lock."""

    places = DEFAULT_PLACES

    def bootstrap(self, *args: Any, **kwargs: Any) -> None:
        super().bootstrap(*args, **kwargs)
        default_signals_in_children()
        self._children: list[Child] = []
        self._looked = float("-inf")
        self._report = Heartbeat(self.name, self.lane, self.places)
        self.begin(self._report.begin)
        self._reported = time.monotonic()
        log.info("worker.started", name=self.name, lane=self.lane, places=self.places)

    def subscribe(self) -> None:
        """RQ's command channel needs a thread; a forking worker is better without one. Signals steer it."""

    def unsubscribe(self) -> None:
        """Nothing was subscribed."""

    @property
    def patience(self) -> float:
        return 0.2 if self._children else 1.0

    def ready_for_more(self) -> bool:
        self._watch()
        if len(self._children) < self.places:
            return True
        youngest = max(child.begun for child in self._children)
        time.sleep(LOOK if time.monotonic() - youngest > 1.0 else LOOK / 10)
        return False

    def execute_job(self, job: RQJob, queue: Queue) -> None:
        claimed = take_over(job, self.name)
        if claimed is None:
            return
        self.forget(job)
        self.recycling.taken += len(claimed)
        for position, item in enumerate(claimed):
            while not self._stop_requested and not self.ready_for_more():
                pass
            if self._stop_requested:
                requeue_unfinished(claimed[position:], self.name)
                return
            try:
                self._children.append(Child(item, self._settle))
            except OSError as error:  # the system gives no more processes
                log.error("worker.no_process", job=item.job.uid, error=type(error).__name__)
                self._settle([Ended(item, not_here(f"The worker {self.name} can't start a process."))])

    def _watch(self) -> None:
        """Settle for children that have ended without it, end those that must, report this worker."""
        for child in [child for child in self._children if child.ended()]:
            self._children.remove(child)
            self._report.done += 1
            if child.ending is not None:
                self._report.failed += 1
                self._settle([Ended(child.claimed, child.ending)])
        for child in self._children:
            if child.overdue():
                child.end(timed_out(child.claimed))
            elif self.recycling.too_fat(child.pid):
                child.end(lost(child.claimed, f"Its process took more than {self.recycling.memory:g} MiB."))
        self._look_for_cancels()
        self._beat()

    def _look_for_cancels(self) -> None:
        if not self._children or time.monotonic() - self._looked < LOOK_FOR_CANCELS:
            return
        self._looked = time.monotonic()
        try:
            asked = set(claim.cancelled(self.name))
        except (DatabaseError, InterfaceError) as error:
            log.warning("worker.cancels_unread", error=type(error).__name__)
            close_old_connections()
            return  # asked again in a second
        for child in self._children:
            if (child.claimed.id, child.claimed.delivery) in asked:
                child.end(cancelled())

    def _beat(self) -> None:
        if time.monotonic() - self._reported < HEARTBEAT_INTERVAL:
            return
        try:
            close_old_connections()
            settlement.retry_unsettled()
            self._report.beat([child.claimed.id for child in self._children])
            self._reported = time.monotonic()
        except (DatabaseError, InterfaceError) as error:
            log.warning("worker.no_heartbeat", error=type(error).__name__)
        except Exception:  # whatever it is, children are watched all the same
            log.exception("worker.no_heartbeat")

    def _settle(self, ended: list[Ended]) -> None:
        end(ended, self.name)

    def teardown(self) -> None:
        """Let what runs end within the grace period, hand back the rest without charging an attempt."""
        left = self._finish()
        try:
            if left:
                returned = requeue_unfinished(left, self.name)
                log.warning("worker.handed_back", name=self.name, jobs=returned)
            self._report.end()
        except (DatabaseError, InterfaceError) as error:
            log.warning("worker.stop_unreported", error=type(error).__name__)
        super().teardown()
        log.info("worker.stopped", name=self.name)

    def _finish(self) -> list[Claimed]:
        since = time.monotonic()
        while self._children:
            self._watch()
            if self.in_a_hurry(since):
                break
            time.sleep(LOOK)
        left = [child.claimed for child in self._children]
        for child in self._children:
            child.abandon()
        return left
