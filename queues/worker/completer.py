"""Completes deliveries that have ended, in batches, by the one thread that does a worker's SQL; it sends heartbeats, too.

The engine is settled first, since other jobs wait for the capacity; then SQL is written. While SQL is unavailable that is
repeated. A result that can't be written is replaced by a failure of the job's code, so that it stops neither its worker
nor the deliveries that ended with it.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import redis
import structlog
from django.db import DatabaseError, InterfaceError, OperationalError, close_old_connections, connection, connections

from queues.deliveries import Ended
from queues.lifecycle.delivery import finish
from queues.registry import RunResult
from queues.settlement import retry_unsettled, settle_engine
from queues.states import AttemptOutcome
from queues.task_errors import described
from queues.worker.claims import cancel_requests
from queues.worker.heartbeat import HEARTBEAT_INTERVAL, Heartbeat
from queues.worker.vital_thread import VitalThread
from quotas import events
from quotas.engine.types import CallOutcome

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


# Deliveries that have ended, by this thread or another


def complete(ended: Sequence[Ended], worker: str) -> None:
    """Complete `ended`, which ran in `worker`. Returns when that is done; raises nothing that one of them causes."""
    _write(_settle_engine(ended), worker)


def _settle_engine(ended: Sequence[Ended]) -> list[Ended]:
    if not any(item.claimed.job.account_lease or item.claimed.job.reservation for item in ended):
        return list(ended)  # nothing was reserved for them
    try:
        return settle_engine(ended)
    except Exception:
        if len(ended) > 1:
            return [settled for item in ended for settled in _settle_engine([item])]
        log.exception("worker.engine_unsettled", job=ended[0].claimed.job.uid)
        _settle_as_unknown(ended[0])
        return list(ended)


def _settle_as_unknown(item: Ended) -> None:
    """Charge the estimate and return what the delivery had reserved."""
    plain = replace(item.result, upstream=CallOutcome("unknown"), actual={})
    try:
        settle_engine([Ended(item.claimed, plain)])
    except Exception:  # its lease expires by itself
        log.exception("worker.engine_unsettled", job=item.claimed.job.uid)


def _write(ended: Sequence[Ended], worker: str) -> None:
    wait = 0.1
    while True:
        try:
            finish(ended, worker)
            return
        except (OperationalError, InterfaceError) as error:
            # Only now: checking before each write whether the connection works would cost a round trip each.
            close_old_connections()
            events.emit(
                events.ServiceUnavailable("worker", f"the ends of {len(ended)} deliveries", type(error).__name__)
            )
            time.sleep(wait)
            wait = min(wait * 2, 2.0)
        except Exception as error:
            if len(ended) > 1:
                for item in ended:
                    _write([item], worker)
                return
            job = ended[0].claimed.job
            log.exception("worker.unsettled", job=job.uid)
            if ended[0].result.category == "code" and ended[0].result.final:
                return  # its claim expires, and the reconciler finds it
            ended = [Ended(ended[0].claimed, _unwritable(error))]


def _unwritable(error: Exception) -> RunResult:
    text = f"How it ended can't be stored: {described(error)}"[:2000]
    return RunResult(AttemptOutcome.FAILED, category="code", error=text, final=True)
