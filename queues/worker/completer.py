"""The thread that does a worker's SQL: it writes ends of jobs in batches, sends heartbeats, reads cancel requests."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable

import redis
import structlog
from django.db import DatabaseError, InterfaceError, close_old_connections, connection, connections

from queues.deliveries import Ended
from queues.settlement import retry_unsettled
from queues.states import AttemptOutcome
from queues.worker.delivery import cancel_requests, complete
from queues.worker.heartbeat import HEARTBEAT_INTERVAL, Heartbeat
from queues.worker.vital_thread import VitalThread
from quotas import events

log = structlog.get_logger(__name__)

PAUSE = 0.01
"""Seconds between two batches. On SQLite a writer that never pauses starves the other processes; on PostgreSQL it pauses only
after a batch of more than `FEW`, so that under load more ends share a transaction."""
FEW = 3
BATCH = 200
CANCEL_CHECK_INTERVAL = 1.0


class Completer:
    """Completes the deliveries of a worker. `on_cancel` gets those whose job is to be cancelled, `on_written` those whose
    ends are written, with the job's id and the delivery's number."""

    def __init__(
        self,
        heartbeat: Heartbeat,
        on_cancel: Callable[[list[tuple[int, int]]], None],
        job_ids: Callable[[], set[int]],
        on_written: Callable[[list[tuple[int, int]]], None] = lambda _: None,
    ) -> None:
        self.heartbeat = heartbeat
        self._on_cancel = on_cancel
        self._job_ids = job_ids
        self._on_written = on_written
        self._unwritten: dict[tuple[int, int], None] = {}
        self._ended: queue.SimpleQueue[Ended | None] = queue.SimpleQueue()
        self._heartbeat_at = float("-inf")
        self._cancels_read_at = float("-inf")
        self._thread = VitalThread(self._write_ends, "completer", heartbeat.end)

    def start(self) -> None:
        """Write the worker's row, then start. Raises what SQL raises: a worker without a row gets no work."""
        self.heartbeat.begin()
        self._thread.start()

    def ended(self, item: Ended) -> None:
        """Take over a delivery that has ended."""
        self._unwritten[item.claimed.id, item.claimed.delivery] = None
        self._ended.put(item)

    def stop(self) -> None:
        """Write the ends that are left, then that the worker has stopped."""
        self._ended.put(None)
        self._thread.join()

    def _write_ends(self) -> None:
        stopping = False
        while not stopping:
            batch, stopping = self._collect()
            if batch:
                self._settle(batch)
            self._tick()
            if batch and not stopping and (connection.vendor == "sqlite" or len(batch) > FEW):
                time.sleep(PAUSE)
        self._report_stop()
        connections.close_all()

    def _collect(self) -> tuple[list[Ended], bool]:
        """Wait for the first end, then take all that have arrived."""
        batch: list[Ended] = []
        try:
            item = self._ended.get(timeout=0.25)
            while item is not None:
                batch.append(item)
                if len(batch) >= BATCH:
                    return batch, False
                item = self._ended.get_nowait()
        except queue.Empty:
            return batch, False
        return batch, True

    def _settle(self, batch: list[Ended]) -> None:
        complete(batch, self.heartbeat.name)
        written = [(item.claimed.id, item.claimed.delivery) for item in batch]
        for delivery in written:
            self._unwritten.pop(delivery, None)
        self._on_written(written)
        self.heartbeat.done += len(batch)
        self.heartbeat.failed += sum(item.result.outcome == AttemptOutcome.FAILED for item in batch)

    def _tick(self) -> None:
        """Heartbeat and cancel requests, each at its own interval. If SQL is unavailable, the next tick tries again."""
        moment = time.monotonic()
        try:
            if moment - self._heartbeat_at >= HEARTBEAT_INTERVAL:
                close_old_connections()
                retry_unsettled()
                self.heartbeat.beat(self._job_ids() | {pk for pk, _ in list(self._unwritten)})
                self._heartbeat_at = moment
            if moment - self._cancels_read_at >= CANCEL_CHECK_INTERVAL and self._job_ids():
                self._cancels_read_at = moment
                asked = cancel_requests(self.heartbeat.name)
                if asked:
                    self._on_cancel(asked)
        except (DatabaseError, InterfaceError, redis.RedisError) as error:
            events.emit(events.ServiceUnavailable("worker", "a heartbeat", type(error).__name__))
            time.sleep(0.2)
        except Exception:  # whatever fails, ends are written all the same
            log.exception("worker.no_heartbeat")
            time.sleep(0.2)

    def _report_stop(self) -> None:
        try:
            self.heartbeat.end()
        except (DatabaseError, InterfaceError) as error:
            events.emit(events.ServiceUnavailable("worker", "writing that it stopped", type(error).__name__))
