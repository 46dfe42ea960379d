"""Base of our workers: an RQ worker with one queue, few Redis commands and a soft stop."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import redis
from django.conf import settings
from django.db import DatabaseError, InterfaceError, close_old_connections
from rq.exceptions import DequeueTimeout, NoSuchJobError, StopRequested
from rq.job import Job as RQJob
from rq.queue import Queue
from rq.utils import as_text
from rq.worker.base import BaseWorker

from queues import hops
from queues.broker import Parcel
from queues.connection import drop_connections
from queues.ids import new_id
from queues.worker.recycling import HARD_LIMIT_FACTOR, Recycling
from quotas import events

FIRST_WAIT, LONGEST_WAIT = 0.2, 1.0
"""Seconds to wait for Redis between two tries."""
RQ_HEARTBEAT_INTERVAL = 10.0
"""Seconds between two of RQ's own heartbeats: only RQ's tools read them, our own are in SQL."""
STOP_GRACE: float = settings.WORKER_GRACE
"""Seconds that running jobs get when the worker has to stop."""


class BaseJobWorker(BaseWorker):
    """Takes parcels from one RQ queue. Subclasses run them."""

    places = 1

    def __init__(self, queues: Any, **options: Any) -> None:
        options["name"] = options.get("name") or f"{socket.gethostname()}-{os.getpid()}-{new_id()[-6:]}"
        options["worker_ttl"] = 60
        super().__init__(queues, **options)
        self.log_job_description = False
        self._rq_heartbeat_at = float("-inf")
        self.recycling = Recycling()
        self.asked_to_stop = False
        """By a signal, and not by its own recycling."""
        self._taking: Any = None
        """The client, with one connection, that waits for parcels."""
        self.waits = False
        """Whether it may be waiting for a parcel."""
        self.idle_waits = 0
        """Waits in a row that ended without a parcel."""

    def bootstrap(self, *args: Any, **kwargs: Any) -> None:
        self._install_signal_handlers()  # before it registers: from then on it may get a signal to stop
        wait = FIRST_WAIT
        while True:
            try:
                super().bootstrap(*args, **kwargs)
                return
            except redis.RedisError as error:
                wait = self._wait_for_redis(error, wait)
                if self._stop_requested:
                    return

    def begin(self, report: Callable[[], None]) -> bool:
        """Run `report`, which writes the worker's row. The dispatcher releases nothing for a worker without one, so it
        is repeated until SQL answers (it may be unavailable, or its disk full). False if the worker has to stop before."""
        wait = FIRST_WAIT
        while not self._stop_requested:
            try:
                close_old_connections()
                report()
                return True
            except (DatabaseError, InterfaceError) as error:
                events.emit(events.ServiceUnavailable("worker", "its start", f"{type(error).__name__}: {error}"))
                time.sleep(wait)
                wait = min(wait * 2, LONGEST_WAIT)
        return False

    def _wait_for_redis(self, error: redis.RedisError, wait: float) -> float:
        """Sleep after a command that failed; returns the next wait. A server that answers with an error (its memory is
        full, it is loading, it has become a replica) is treated like one that does not answer."""
        events.emit(events.ServiceUnavailable("worker", "taking parcels", type(error).__name__))
        if self._taking is not None:
            self._taking.close()
            self._taking = None
        drop_connections(self.connection)
        time.sleep(wait)
        return min(wait * 2, LONGEST_WAIT)

    def register_birth(self) -> None:
        """Take over a name that RQ has already: its worker was killed a moment ago and is started again. If both live,
        no job runs twice, since each delivery has one number and each worker renews only its own claims."""
        self.connection.delete(self.key)
        super().register_birth()

    @property
    def lane(self) -> str:
        return self.queues[0].name

    def request_stop(self, signum: int, frame: FrameType | None) -> None:
        """On the first signal: take nothing more, finish what runs. Raises nothing in the main thread."""
        from rq.utils import now

        self._shutdown_requested_date = now()
        self._stop_requested = self.asked_to_stop = True
        self._stop_requested_at = time.monotonic()
        signal.signal(signal.SIGINT, self.request_force_stop)
        signal.signal(signal.SIGTERM, self.request_force_stop)

    def run_maintenance_tasks(self) -> None:
        """None: the reconciler recovers from SQL, and RQ's registries have none of our jobs."""

    @property
    def should_run_maintenance_tasks(self) -> bool:
        return False

    def heartbeat(self, timeout: int | None = None, pipeline: Any = None) -> None:
        """RQ sends three commands here for each job; one in ten seconds is enough to be seen."""
        if time.monotonic() - self._rq_heartbeat_at >= RQ_HEARTBEAT_INTERVAL:
            self._rq_heartbeat_at = time.monotonic()
            try:
                super().heartbeat(timeout, pipeline)
            except redis.RedisError as error:
                events.emit(events.ServiceUnavailable("worker", "RQ's heartbeat", type(error).__name__))

    def check_for_suspension(self, burst: bool) -> None:
        """Honours `rq suspend`, which is read with each heartbeat."""
        if time.monotonic() - self._rq_heartbeat_at >= RQ_HEARTBEAT_INTERVAL:
            try:
                super().check_for_suspension(burst)
            except redis.RedisError as error:
                events.emit(
                    events.ServiceUnavailable("worker", "reading whether RQ is suspended", type(error).__name__)
                )

    def _pubsub_exception_handler(self, exc: Exception, pubsub: Any, pubsub_thread: Any) -> None:
        """Keep RQ's command thread running, whatever its connection raises."""
        events.emit(events.ServiceUnavailable("worker", "RQ's commands", type(exc).__name__))
        time.sleep(2.0)

    def teardown(self) -> None:
        """RQ's record of this worker is for its tools only: it expires if Redis takes no command now."""
        try:
            super().teardown()
        except redis.RedisError as error:
            events.emit(events.ServiceUnavailable("worker", "the end of RQ's record", type(error).__name__))

    def procline(self, message: str) -> None:
        """Not renamed for each job."""

    def set_state(self, state: Any, pipeline: Any = None) -> None:
        self._state = state

    def ready_for_more(self) -> bool:
        """Whether to take a parcel now; may wait up to a second."""
        return True

    @property
    def patience(self) -> float:
        """Seconds to wait for a parcel before doing something else."""
        return 1.0

    def stop_if_recycling_due(self) -> None:
        """Take nothing more if this process has run its number of jobs, exceeds its memory limit or has lost a thread."""
        if self._stop_requested:
            return
        if why := self.recycling.why():
            events.emit(events.WorkerRecycling(self.name, why))
            self._stop_requested = True

    def must_stop_now(self, since: float) -> bool:
        """Whether to wait no longer for running jobs. `since`: monotonic seconds when the waiting began.

        A worker that has to stop, exceeds its memory limit or has a stuck thread gives its jobs the grace period;
        one that has only run its number of jobs waits for them.
        """
        if self.recycling.exceeds_memory(HARD_LIMIT_FACTOR):
            return True
        if self.asked_to_stop:
            since = max(since, self._stop_requested_at)
        elif not (self.recycling.exceeds_memory() or self.recycling.stuck()):
            return False
        return time.monotonic() - since > STOP_GRACE

    def dequeue_job_and_maintain_ttl(
        self, timeout: int | None, max_idle_time: int | None = None
    ) -> tuple[RQJob, Queue] | None:
        """The next parcel; None in burst mode with nothing left. While Redis is unavailable it is tried again."""
        burst = timeout is None
        wait = FIRST_WAIT
        while True:
            self.stop_if_recycling_due()
            self.waits = True  # before the look at the request: what ends a wait need not know which came first
            try:
                if self._stop_requested:
                    raise StopRequested()
                if not self.ready_for_more():
                    continue
                self.heartbeat()
                taken = self._take(None if burst else self.patience)
                self.idle_waits = 0
                if taken is not None or burst:
                    return taken
            except DequeueTimeout:
                self.idle_waits += 1
                wait = FIRST_WAIT
            except redis.RedisError as error:
                wait = self._wait_for_redis(error, wait)
            finally:
                self.waits = False

    def _take(self, seconds: float | None) -> tuple[RQJob, Queue] | None:
        """The next parcel, moved to RQ's intermediate list so that a kill here loses none; None if `seconds` is None
        and the queue is empty."""
        queue = self.queues[0]
        while True:
            found = self.queue_class.lmove(self._taking_client(), queue.key, seconds)  # type: ignore[arg-type]
            if found is None:
                return None
            if hops.observer is not None:
                hops.observer(hops.TAKEN)
            try:
                return Parcel.fetch(as_text(found[1]), connection=self.connection, serializer=self.serializer), queue
            except NoSuchJobError:
                continue  # its deliveries were given up and are released again

    def _taking_client(self) -> Any:
        if self._taking is None:
            client = self.connection.client()
            client.connection.client_name = self.name  # set again with each connection
            client.client_setname(self.name)
            self._taking = client
        return self._taking

    def forget(self, rq_job: RQJob) -> None:
        """Remove a parcel from Redis: its deliveries are claimed in SQL now, or stale."""
        try:
            with self.connection.pipeline(transaction=False) as pipeline:
                pipeline.lrem(self.queues[0].intermediate_queue_key, 1, rq_job.id)
                pipeline.delete(rq_job.key)
                pipeline.execute()
        except redis.RedisError as error:
            # A parcel that stays has only stale deliveries, and the parcel cleaner removes it.
            events.emit(events.ServiceUnavailable("worker", "removing a parcel", type(error).__name__))
