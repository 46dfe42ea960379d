"""The worker of the lane `cpu`: a forked process for each job. Suspects run here, too, so that they crash alone."""

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
from queues.worker.base import BaseJobWorker
from queues.worker.child import Child
from queues.worker.child_processes import default_signals_in_children
from queues.worker.claims import cancel_requests, claim_parcel
from queues.worker.completer import complete
from queues.worker.failures import cancelled, process_lost, returned_to_others, timed_out
from queues.worker.heartbeat import HEARTBEAT_INTERVAL, Heartbeat
from queues.worker.requeue import requeue_unfinished
from quotas import events

log = structlog.get_logger(__name__)

DEFAULT_PLACES = settings.CPU_CONCURRENCY
"""Jobs at once. Above the number of cores on most machines: jobs that died with a worker of the lane `io` run here, too,
and most of those wait for the network and not for the processor."""
LOOK = 0.05
"""Seconds between two checks of the children while nothing else is to be done."""
CANCEL_CHECK_INTERVAL = 1.0


class ForkingWorker(BaseJobWorker):
    """An RQ worker that runs each job in a process of its own. It has no threads that a fork could catch in a lock."""

    places = DEFAULT_PLACES

    def bootstrap(self, *args: Any, **kwargs: Any) -> None:
        super().bootstrap(*args, **kwargs)
        default_signals_in_children()
        self._children: list[Child] = []
        self._cancels_read_at = float("-inf")
        self._heartbeat = Heartbeat(self.name, self.lane, self.places)
        self.begin(self._heartbeat.begin)
        self._heartbeat_at = time.monotonic()
        events.emit(events.WorkerStarted(self.name, self.lane, self.places))

    def subscribe(self) -> None:
        """RQ's command channel needs a thread, which a forking worker must not have. Signals control it."""

    def unsubscribe(self) -> None:
        """Nothing was subscribed."""

    @property
    def patience(self) -> float:
        return 0.2 if self._children else min(1.0 + self.idle_waits, 2.0)

    def ready_for_more(self) -> bool:
        self._supervise()
        if len(self._children) < self.places:
            return True
        youngest = max(child.begun for child in self._children)
        time.sleep(LOOK if time.monotonic() - youngest > 1.0 else LOOK / 10)
        return False

    def execute_job(self, job: RQJob, queue: Queue) -> None:
        claimed = claim_parcel(job, self.name)
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
                events.emit(events.CapacityExhausted(item.job.uid, "process", type(error).__name__))
                self._settle([Ended(item, returned_to_others(f"The worker {self.name} can't start a process."))])

    def _supervise(self) -> None:
        """Reap finished children, kill overdue ones, send a heartbeat."""
        for child in [child for child in self._children if child.ended()]:
            self._children.remove(child)
            self._heartbeat.done += 1
            if child.ending is not None:
                self._heartbeat.failed += 1
                self._settle([Ended(child.claimed, child.ending)])
        for child in self._children:
            if child.overdue():
                child.end(timed_out(child.claimed))
            elif self.recycling.child_exceeds_memory(child.pid):
                child.end(process_lost(child.claimed, f"Its process took more than {self.recycling.memory:g} MiB."))
        self._apply_cancels()
        self._send_heartbeat()

    def _apply_cancels(self) -> None:
        if not self._children or time.monotonic() - self._cancels_read_at < CANCEL_CHECK_INTERVAL:
            return
        self._cancels_read_at = time.monotonic()
        try:
            asked = set(cancel_requests(self.name))
        except (DatabaseError, InterfaceError) as error:
            events.emit(events.ServiceUnavailable("worker", "reading cancel requests", type(error).__name__))
            close_old_connections()
            return  # tried again in a second
        for child in self._children:
            if (child.claimed.id, child.claimed.delivery) in asked:
                child.end(cancelled(child.claimed))

    def _send_heartbeat(self) -> None:
        if time.monotonic() - self._heartbeat_at < HEARTBEAT_INTERVAL:
            return
        try:
            close_old_connections()
            settlement.retry_unsettled()
            self._heartbeat.beat([child.claimed.id for child in self._children])
            self._heartbeat_at = time.monotonic()
        except (DatabaseError, InterfaceError) as error:
            events.emit(events.ServiceUnavailable("worker", "a heartbeat", type(error).__name__))
        except Exception:  # whatever fails, children are supervised all the same
            log.exception("worker.no_heartbeat")

    def _settle(self, ended: list[Ended]) -> None:
        complete(ended, self.name)

    def teardown(self) -> None:
        """Wait for running jobs within the grace period; requeue the rest without charging an attempt."""
        left = self._finish()
        try:
            if left:
                returned = requeue_unfinished(left, self.name)
                events.emit(events.JobsRequeued(self.name, returned))
            self._heartbeat.end()
        except (DatabaseError, InterfaceError) as error:
            events.emit(events.ServiceUnavailable("worker", "writing that it stopped", type(error).__name__))
        super().teardown()
        events.emit(events.WorkerStopped(self.name))

    def _finish(self) -> list[Claimed]:
        since = time.monotonic()
        while self._children:
            self._supervise()
            if self.must_stop_now(since):
                break
            time.sleep(LOOK)
        left = [child.claimed for child in self._children]
        for child in self._children:
            child.abandon()
        return left
