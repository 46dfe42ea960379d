"""The worker of the lane `io`: many jobs at once, each in a thread."""

from __future__ import annotations

import os
import time
from typing import Any

import structlog
from django.conf import settings
from rq.job import Job as RQJob
from rq.queue import Queue

from queues.event_loops import abandoned, sync_threads
from queues.worker.base import BaseJobWorker
from queues.worker.child_processes import default_signals_in_children
from queues.worker.completer import Completer
from queues.worker.heartbeat import Heartbeat
from queues.worker.main_loop import take_over
from queues.worker.requeue import requeue_unfinished
from queues.worker.thread_pool import JobThreadPool

log = structlog.get_logger(__name__)

DEFAULT_PLACES = settings.CONCURRENCY


class ThreadedWorker(BaseJobWorker):
    """An RQ worker whose jobs run in a pool of threads. RQ's own bookkeeping per job is replaced by ours in SQL."""

    places = DEFAULT_PLACES

    def bootstrap(self, *args: Any, **kwargs: Any) -> None:
        super().bootstrap(*args, **kwargs)
        default_signals_in_children()
        report = Heartbeat(self.name, self.lane, self.places, lost_places=self._stuck)
        self._crew = JobThreadPool(self.places, lambda ended: self._books.ended(ended), report.end)
        self.recycling.stuck = self._stuck
        self._books = Completer(report, self._crew.cancel, self._crew.in_hand)
        self._known = self.begin(self._books.start)
        log.info("worker.started", name=self.name, lane=self.lane, places=self.places)

    def _stuck(self) -> int:
        """Jobs that go on, or would, in spite of all interrupts."""
        return self._crew.lost + abandoned()

    def ready_for_more(self) -> bool:
        return self._crew.wait_for_place(1.0)

    def execute_job(self, job: RQJob, queue: Queue) -> None:
        """Claim a parcel's deliveries and hand them to the threads; does not wait for them."""
        claimed = take_over(job, self.name)
        if claimed is None:
            return
        self._crew.take(claimed)
        self.recycling.taken += len(claimed)
        self.forget(job)

    def handle_payload(self, message: Any) -> None:
        """A command over RQ's channel; one that is no command is passed over."""
        try:
            super().handle_payload(message)
        except Exception as error:
            log.warning("worker.command_refused", error=type(error).__name__)

    def _pubsub_exception_handler(self, exc: Exception, pubsub: Any, pubsub_thread: Any) -> None:
        """Go on listening for commands, whatever Redis answers meanwhile."""
        log.warning("worker.commands_away", error=type(exc).__name__)
        time.sleep(2.0)

    def teardown(self) -> None:
        """Finish within the grace period, hand back the rest without charging an attempt."""
        left = self._crew.drain(self.in_a_hurry)
        # Too large, and not because somebody else asked: one of these may be the cause, and runs alone next time.
        blamed = not self.asked_to_stop and self.recycling.fat()
        try:
            if self._known:
                self._books.stop()
            if left:
                returned = requeue_unfinished(left, self.name, suspect=blamed)
                log.warning("worker.handed_back", name=self.name, jobs=returned)
            super().teardown()
        except Exception as error:  # what is not handed back is found when its leases run out
            log.warning("worker.stop_incomplete", error=type(error).__name__)
        log.info("worker.stopped", name=self.name)
        if left or self._stuck() or sync_threads():
            # Threads that are still in a call would keep the process; what they bring is stale from now on.
            os._exit(0)
