"""One thread that writes for all threads of a worker: ends of jobs in batches, heartbeats, cancels."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable

import redis
import structlog
from django.db import DatabaseError, InterfaceError, close_old_connections, connections

from queues.deliveries import Ended
from queues.settlement import retry_unsettled
from queues.states import AttemptOutcome
from queues.worker import claim
from queues.worker.delivery_end import end
from queues.worker.heartbeat import HEARTBEAT_INTERVAL, Heartbeat
from queues.worker.vital_thread import VitalThread

log = structlog.get_logger(__name__)

PACE = 0.01
"""Seconds between two batches: a writer that never pauses starves the other processes of SQLite."""
BATCH = 200
LOOK_FOR_CANCELS = 1.0


class Completer:
    """Keeps a worker's books. `on_cancel` gets deliveries that are to be stopped."""

    def __init__(
        self, report: Heartbeat, on_cancel: Callable[[list[tuple[int, int]]], None], in_hand: Callable[[], set[int]]
    ) -> None:
        self.report = report
        self._on_cancel = on_cancel
        self._in_hand = in_hand
        self._unwritten: dict[tuple[int, int], None] = {}
        self._ended: queue.SimpleQueue[Ended | None] = queue.SimpleQueue()
        self._beat = float("-inf")
        self._looked = float("-inf")
        self._thread = VitalThread(self._keep, "bookkeeper", report.end)

    def start(self) -> None:
        """Report the worker, then begin. Raises what SQL raises: a worker nobody knows of gets no work."""
        self.report.begin()
        self._thread.start()

    def ended(self, item: Ended) -> None:
        """Take over a delivery that has ended."""
        self._unwritten[item.claimed.id, item.claimed.delivery] = None
        self._ended.put(item)

    def stop(self) -> None:
        """Write what is left and report the worker as stopped."""
        self._ended.put(None)
        self._thread.join()

    def _keep(self) -> None:
        stopping = False
        while not stopping:
            batch, stopping = self._collect()
            if batch:
                self._settle(batch)
            self._tick()
            if batch and not stopping:
                time.sleep(PACE)
        self._report_stop()
        connections.close_all()

    def _collect(self) -> tuple[list[Ended], bool]:
        """Wait for the first end, then take what else is there."""
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
        end(batch, self.report.name)
        for item in batch:
            self._unwritten.pop((item.claimed.id, item.claimed.delivery), None)
        self.report.done += len(batch)
        self.report.failed += sum(item.result.outcome == AttemptOutcome.FAILED for item in batch)

    def _tick(self) -> None:
        """Heartbeat and cancels, each at its own pace. SQL away is tried again with the next tick."""
        moment = time.monotonic()
        try:
            if moment - self._beat >= HEARTBEAT_INTERVAL:
                close_old_connections()
                retry_unsettled()
                self.report.beat(self._in_hand() | {pk for pk, _ in list(self._unwritten)})
                self._beat = moment
            if moment - self._looked >= LOOK_FOR_CANCELS and self._in_hand():
                self._looked = moment
                asked = claim.cancelled(self.report.name)
                if asked:
                    self._on_cancel(asked)
        except (DatabaseError, InterfaceError, redis.RedisError) as error:
            log.warning("worker.no_heartbeat", error=type(error).__name__)
            time.sleep(0.2)
        except Exception:  # whatever it is, ends are written all the same
            log.exception("worker.no_heartbeat")
            time.sleep(0.2)

    def _report_stop(self) -> None:
        try:
            self.report.end()
        except (DatabaseError, InterfaceError) as error:
            log.warning("worker.stop_unreported", error=type(error).__name__)
