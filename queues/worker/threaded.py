"""The worker of the lane `io`: many jobs at once, each in a thread."""

from __future__ import annotations

import os
import threading
import time
from types import FrameType
from typing import Any

import redis
import structlog
from django.conf import settings
from rq.job import Job as RQJob
from rq.queue import Queue

from queues import hops
from queues.broker import Delivery, enqueue, split
from queues.call_threads import open_call_threads
from queues.event_loops import abandoned
from queues.worker.base import BaseJobWorker
from queues.worker.child_processes import default_signals_in_children
from queues.worker.claims import claim_parcel
from queues.worker.completer import Completer
from queues.worker.heartbeat import Heartbeat
from queues.worker.requeue import requeue_unfinished
from queues.worker.thread_pool import JobThreadPool
from quotas import events

log = structlog.get_logger(__name__)

LONGEST_PATIENCE = 4.0
"""Seconds that an idle worker waits for a parcel: each wait is a command. Less than a client's timeout."""
DEFAULT_PLACES = settings.CONCURRENCY


class ThreadedWorker(BaseJobWorker):
    """An RQ worker whose jobs run in a pool of threads. Jobs are claimed and completed in SQL, not in RQ's registries."""

    places = DEFAULT_PLACES

    def bootstrap(self, *args: Any, **kwargs: Any) -> None:
        super().bootstrap(*args, **kwargs)
        default_signals_in_children()
        heartbeat = Heartbeat(self.name, self.lane, self.places, lost_places=self._stuck)
        self._threads = JobThreadPool(self.places, lambda ended: self._completer.ended(ended), heartbeat.end)
        self.recycling.stuck = self._stuck
        self._completer = Completer(heartbeat, self._threads.cancel, self._threads.job_ids, self._threads.written)
        self._known = self.begin(self._completer.start)
        events.emit(events.WorkerStarted(self.name, self.lane, self.places))

    def _stuck(self) -> int:
        """Jobs that no interrupt has ended."""
        return self._threads.lost + abandoned()

    @property
    def patience(self) -> float:
        return min(1.0 + self.idle_waits, LONGEST_PATIENCE)

    def request_stop(self, signum: int, frame: FrameType | None) -> None:
        super().request_stop(signum, frame)
        threading.Thread(target=self._end_wait, name="stop", daemon=True).start()

    def _end_wait(self) -> None:
        """End a wait for parcels as if its time were up, so that no parcel is lost that Redis has moved. Repeated, since
        Redis may get the command that waits after this one."""
        try:
            while self.waits:
                for found in self.connection.client_list():
                    if found.get("name") == self.name and found.get("cmd") == "blmove":
                        self.connection.client_unblock(int(found["id"]))
                time.sleep(0.1)
        except redis.RedisError as error:  # the wait ends by itself
            log.warning("worker.wait_not_ended", error=type(error).__name__)

    def ready_for_more(self) -> bool:
        return self._threads.wait_for_slot(1.0)

    def execute_job(self, job: RQJob, queue: Queue) -> None:
        """Claim a parcel's deliveries and start them in the threads; does not wait for them. Those for which no slot
        will be free soon go back to the front of the belt, where a worker with free slots takes them."""
        left = split(job, self._threads.room())
        claimed = claim_parcel(job, self.name)
        if claimed is None:
            return
        if hops.observer is not None:
            hops.observer(hops.CLAIMED)
        self._threads.start(claimed)
        self.recycling.taken += len(claimed)
        self.forget(job)
        if left:
            self._return_rest(job, left)

    def _return_rest(self, parcel: RQJob, left: list[Delivery]) -> None:
        try:
            enqueue(self.lane, [(parcel.id, left)], at_front=True)
        except redis.RedisError as error:  # the reconciler finds rows whose parcel is on no belt
            events.emit(events.ServiceUnavailable("worker", "returning a part of a parcel", type(error).__name__))

    def handle_payload(self, message: Any) -> None:
        """A command over RQ's channel. One that can't be read is ignored."""
        try:
            super().handle_payload(message)
        except Exception as error:  # noqa: BLE001 - a command that can't be read stops no worker
            log.warning("worker.command_refused", error=type(error).__name__)

    def _pubsub_exception_handler(self, exc: Exception, pubsub: Any, pubsub_thread: Any) -> None:
        """Keep RQ's command thread running, whatever Redis answers meanwhile."""
        events.emit(events.ServiceUnavailable("worker", "RQ's commands", type(exc).__name__))
        time.sleep(2.0)

    def teardown(self) -> None:
        """Wait for running jobs within the grace period; requeue the rest without charging an attempt."""
        left = self._threads.drain(self.must_stop_now)
        # If the worker stops because of its memory, one of these jobs may be the cause, and runs alone next time.
        suspect = not self.asked_to_stop and self.recycling.exceeds_memory()
        try:
            if self._known:
                self._completer.stop()
            if left:
                returned = requeue_unfinished(left, self.name, suspect=suspect)
                events.emit(events.JobsRequeued(self.name, returned))
            super().teardown()
        except Exception as error:  # noqa: BLE001 - jobs that are not requeued are found when their claims expire
            log.warning("worker.stop_incomplete", error=type(error).__name__)
        events.emit(events.WorkerStopped(self.name))
        if left or self._stuck() or open_call_threads():
            # Threads that are still in a call would keep the process alive; their results are stale from now on.
            os._exit(0)
