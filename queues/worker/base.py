"""What our workers do otherwise than RQ's own: one queue, short sleeps, few commands, a soft stop."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import redis
import structlog
from django.conf import settings
from django.db import DatabaseError, InterfaceError, close_old_connections
from rq.exceptions import DequeueTimeout, NoSuchJobError, StopRequested
from rq.job import Job as RQJob
from rq.queue import Queue
from rq.utils import as_text
from rq.worker.base import BaseWorker

from queues.connection import drop_connections
from queues.ids import new_id
from queues.worker.parcel import Parcel
from queues.worker.recycling import FAR_TOO_MUCH, Recycling

log = structlog.get_logger(__name__)

FIRST_WAIT, LONGEST_WAIT = 0.2, 1.0
"""Seconds to wait for Redis between two tries."""
BEAT = 10.0
"""Seconds between two of RQ's own heartbeats: for its tools only, our books are kept in SQL."""
GRACE: float = settings.WORKER_GRACE
"""Seconds that running jobs get when the worker is asked to stop."""


class BaseJobWorker(BaseWorker):
    """Takes parcels off one RQ queue. What a parcel is and how it is run is for the subclasses."""

    places = 1

    def __init__(self, queues: Any, **options: Any) -> None:
        options["name"] = options.get("name") or f"{socket.gethostname()}-{os.getpid()}-{new_id()[-6:]}"
        options["worker_ttl"] = 60
        super().__init__(queues, **options)
        self.log_job_description = False
        self._beaten = float("-inf")
        self.recycling = Recycling()
        self.asked_to_stop = False
        """By a signal, and not by itself to make room for a fresh one."""

    def bootstrap(self, *args: Any, **kwargs: Any) -> None:
        self._install_signal_handlers()  # before it is known to anybody: from then on it may be asked to stop
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
        """Run `report`, which makes the worker known in SQL. Nobody would give work to one that is not, so that SQL is waited for (it is away,
        or its disk is full). False where the worker was asked to stop before that."""
        wait = FIRST_WAIT
        while not self._stop_requested:
            try:
                close_old_connections()
                report()
                return True
            except (DatabaseError, InterfaceError) as error:
                log.warning("worker.sql_away", error=f"{type(error).__name__}: {error}")
                time.sleep(wait)
                wait = min(wait * 2, LONGEST_WAIT)
        return False

    def _wait_for_redis(self, error: redis.RedisError, wait: float) -> float:
        """Sleep after a command that failed; the next wait. A server that answers with an error (its memory is full, it
        is loading, it has become a replica) is waited for like one that does not answer."""
        log.warning("worker.redis_away", error=type(error).__name__)
        drop_connections(self.connection)
        time.sleep(wait)
        return min(wait * 2, LONGEST_WAIT)

    def register_birth(self) -> None:
        """A name that RQ knows is taken over: whoever had it was killed a moment ago and is started again. Should both
        live, nothing is done twice, since each delivery has one number and each renews only what it has in hand."""
        self.connection.delete(self.key)
        super().register_birth()

    @property
    def lane(self) -> str:
        return self.queues[0].name

    def request_stop(self, signum: int, frame: FrameType | None) -> None:
        """The first signal: take nothing more, finish what runs. Nothing is raised into what the main thread does."""
        from rq.utils import now

        self._shutdown_requested_date = now()
        self._stop_requested = self.asked_to_stop = True
        self._asked_at = time.monotonic()
        signal.signal(signal.SIGINT, self.request_force_stop)
        signal.signal(signal.SIGTERM, self.request_force_stop)

    def run_maintenance_tasks(self) -> None:
        """Recovery is the reconciler's, from SQL: RQ's registries hold nothing of ours."""

    @property
    def should_run_maintenance_tasks(self) -> bool:
        return False

    def heartbeat(self, timeout: int | None = None, pipeline: Any = None) -> None:
        """RQ sends three commands here for each job; one in ten seconds is enough to be seen."""
        if time.monotonic() - self._beaten >= BEAT:
            self._beaten = time.monotonic()
            try:
                super().heartbeat(timeout, pipeline)
            except redis.RedisError as error:
                log.warning("worker.unseen_by_rq", error=type(error).__name__)

    def check_for_suspension(self, burst: bool) -> None:
        """Honours `rq suspend`, looked at with each heartbeat."""
        if time.monotonic() - self._beaten >= BEAT:
            try:
                super().check_for_suspension(burst)
            except redis.RedisError as error:
                log.warning("worker.suspension_unknown", error=type(error).__name__)

    def _pubsub_exception_handler(self, exc: Exception, pubsub: Any, pubsub_thread: Any) -> None:
        """RQ's thread of commands goes on after whatever its connection raises."""
        log.warning("worker.commands_unread", error=type(exc).__name__)
        time.sleep(2.0)

    def teardown(self) -> None:
        """RQ's record of this worker is only for its tools: it ends by itself where Redis takes no command now."""
        try:
            super().teardown()
        except redis.RedisError as error:
            log.warning("worker.death_unregistered", error=type(error).__name__)

    def procline(self, message: str) -> None:
        """Not renamed for each job."""

    def set_state(self, state: Any, pipeline: Any = None) -> None:
        self._state = state

    def ready_for_more(self) -> bool:
        """Whether to take a parcel now; may wait up to a second."""
        return True

    @property
    def patience(self) -> float:
        """Seconds to wait for a parcel before looking at something else."""
        return 1.0

    def make_room(self) -> None:
        """Take nothing more where this process has done its share, grown too large, or lost a thread."""
        if self._stop_requested:
            return
        if why := self.recycling.why():
            log.info("worker.makes_room", name=self.name, why=why)
            self._stop_requested = True

    def in_a_hurry(self, since: float) -> bool:
        """Whether what still runs is waited for no longer. `since`: monotonic seconds when the waiting began.

        A worker that was asked to stop, is too large or has a stuck thread gives its jobs the grace period; one that
        has just done its share waits for them.
        """
        if self.recycling.fat(FAR_TOO_MUCH):
            return True
        if self.asked_to_stop:
            since = max(since, self._asked_at)
        elif not (self.recycling.fat() or self.recycling.stuck()):
            return False
        return time.monotonic() - since > GRACE

    def dequeue_job_and_maintain_ttl(
        self, timeout: int | None, max_idle_time: int | None = None
    ) -> tuple[RQJob, Queue] | None:
        """The next parcel; None in burst mode with nothing left. Redis away is waited for."""
        burst = timeout is None
        wait = FIRST_WAIT
        while True:
            self.make_room()
            if self._stop_requested:
                raise StopRequested()
            if not self.ready_for_more():
                continue
            try:
                self.heartbeat()
                taken = self._take(None if burst else self.patience)
                if taken is not None or burst:
                    return taken
            except DequeueTimeout:
                wait = FIRST_WAIT
            except redis.RedisError as error:
                wait = self._wait_for_redis(error, wait)

    def _take(self, seconds: float | None) -> tuple[RQJob, Queue] | None:
        """The next parcel, by way of RQ's intermediate list, so that a kill right here loses none; None where `seconds`
        is None and the queue is empty."""
        queue = self.queues[0]
        while True:
            found = self.queue_class.lmove(self.connection, queue.key, seconds)  # type: ignore[arg-type]
            if found is None:
                return None
            try:
                return Parcel.fetch(as_text(found[1]), connection=self.connection, serializer=self.serializer), queue
            except NoSuchJobError:
                continue  # its deliveries were given up and are released anew

    def forget(self, rq_job: RQJob) -> None:
        """Take a parcel off Redis: its deliveries are claimed in SQL now, or stale."""
        try:
            with self.connection.pipeline(transaction=False) as pipeline:
                pipeline.lrem(self.queues[0].intermediate_queue_key, 1, rq_job.id)
                pipeline.delete(rq_job.key)
                pipeline.execute()
        except redis.RedisError as error:
            # A parcel that stays is found to hold nothing but stale deliveries.
            log.warning("worker.parcel_stays", error=type(error).__name__)
