"""The threads and event loops that run a worker's jobs, and the thread that enforces their deadlines."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import structlog
from django.conf import settings

from queues import registry
from queues.deliveries import Claimed, Ended
from queues.errors import JobCancelled, JobTimedOut
from queues.registry import RunResult
from queues.worker.checked_result import fault
from queues.worker.failures import returned_to_others
from queues.worker.job_loop import RunningInLoop
from queues.worker.job_loops import JobLoops
from queues.worker.running import Running, RunningJob
from queues.worker.vital_thread import VitalThread
from quotas import events
from quotas.engine.types import CallOutcome

log = structlog.get_logger(__name__)

WATCH_INTERVAL = 0.1
"""Seconds between two checks of the deadlines."""
REPEAT_INTERVAL = 2.0
"""Seconds between two interrupts of a job that has caught the last one, or is still cleaning up after it."""
STUCK_AFTER: float = settings.STUCK_AFTER
"""Seconds from the first interrupt until a thread that still runs its job counts as lost."""
CLAIM_AHEAD = 0.05
"""Seconds of work that may be claimed before slots are free for it: taking and claiming a parcel takes that long under load."""
PARCEL_AHEAD = 0.5
"""Seconds of work that a parcel may bring beyond the free slots; what is more stays on the belt for other workers."""
LONGEST_WAIT = 1.0
"""Seconds that a claimed delivery waits for a slot; then it is returned, since another worker may have a free one."""
RECENT = 0.5
"""Seconds since the last end after which nothing is claimed ahead: quick jobs may have been followed by slow ones."""
NEWEST = 1 / 16
"""Weight of the newest run time in the mean."""


class JobThreadPool:
    """A pool of `places` slots. `on_end` gets each delivery that has ended, from the thread in which it ran.

    A job with user's code runs in a new thread of its own, a trusted one in a thread that is kept: nothing that a task
    leaves in its thread, and no late interrupt, reaches another job. Async jobs share an event loop. The thread of a job that ends starts the next one
    before its end is written, unless the job's type requires the other order (`settle`); then `written` frees the slot.
    `lost` counts the threads that no interrupt ends: their deliveries end without them, and they last as long as the
    process.
    """

    def __init__(
        self, places: int, on_end: Callable[[Ended], None], before_exit: Callable[[], None] = lambda: None
    ) -> None:
        self.places = places
        self.lost = 0
        self._on_end = on_end
        self._trusted = ThreadPoolExecutor(places, thread_name_prefix="job-slot")
        self._loops = JobLoops(self._finished)
        self._running: dict[tuple[int, int], RunningJob] = {}
        self._waiting: deque[RunningJob] = deque()
        self._unwritten: set[tuple[int, int]] = set()
        """Ended deliveries that keep their slots until their ends are written."""
        self._taken = 0
        self._run_time = 1.0
        """Seconds that a job keeps its slot, the mean of the last ones."""
        self._ended_at = float("-inf")
        self._exact = 0
        """Deliveries here that are not to be claimed before a slot is free for them."""
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._watch = VitalThread(self._watch_deadlines, "deadlines", before_exit)
        self._watch.start()

    def busy(self) -> int:
        """Deliveries that run or wait for a thread."""
        return len(self._running)

    def job_ids(self) -> set[int]:
        """The jobs of those deliveries."""
        return {pk for pk, _ in list(self._running)}

    def wait_for_slot(self, seconds: float) -> bool:
        """True as soon as a slot is free, or will be by the time that a parcel is claimed; False after `seconds`."""
        with self._changed:
            return self._changed.wait_for(lambda: self._free() + self._ahead(CLAIM_AHEAD) > 0, timeout=seconds)

    def room(self) -> int:
        """How many deliveries of a parcel to claim, at least one."""
        with self._changed:
            return max(self._free() + self._ahead(PARCEL_AHEAD), 1)

    def _free(self) -> int:
        """Free slots; below 0 while deliveries wait for one."""
        return self.places - len(self._running) - len(self._unwritten) - self.lost

    def _ahead(self, seconds: float) -> int:
        """Deliveries that may be claimed beyond the slots: as many as end within `seconds`, so that no slot waits for
        a claim. None where jobs take seconds, or where one is at most once: after a kill it would not be known that it had not
        started."""
        if self._exact or time.monotonic() - self._ended_at > RECENT:
            return 0
        return int(self.places * min(seconds / self._run_time, 1.0))

    def start(self, claimed: Sequence[Claimed]) -> None:
        """Run these, at once as far as slots are free."""
        added = [self._prepared(item) for item in claimed]
        with self._changed:
            self._running.update({(running.claimed.id, running.claimed.delivery): running for running in added})
            self._waiting.extend(added)
            self._exact += sum(running.is_exact for running in added)
        self._start_waiting()

    def _prepared(self, claimed: Claimed) -> RunningJob:
        try:
            asynchronous = registry.is_async(claimed.job.type, claimed.job.payload)
        except Exception:  # a job type of the user's: what is wrong with it shows when it runs
            log.exception("worker.type_faulty", type=claimed.job.type)
            asynchronous = False
        return self._loops.running(claimed) if asynchronous else Running(claimed)

    def _start_waiting(self) -> None:
        """Start waiting deliveries, as far as slots are free."""
        while (running := self._next()) is not None:
            try:
                self._begin(running)
            except (RuntimeError, OSError) as error:  # the system gives no more threads, or a new loop no files
                self._end(running, _no_thread(running.claimed, error))

    def _begin(self, running: RunningJob) -> None:
        running.begun_at = time.monotonic()
        if isinstance(running, RunningInLoop):
            self._loops.start(running)
        elif running.trusted:
            self._trusted.submit(self._run, running)
        else:
            threading.Thread(target=self._run, args=(running,), name="job", daemon=True).start()

    def _next(self) -> RunningJob | None:
        """Take a slot for the next waiting delivery; None if no slot is free or no delivery waits."""
        with self._changed:
            if not self._waiting or self._taken >= self.places or self._stopping.is_set():
                return None
            self._taken += 1
            return self._waiting.popleft()

    def cancel(self, deliveries: Sequence[tuple[int, int]]) -> None:
        """Interrupt those of the deliveries that run here."""
        for delivery in deliveries:
            running = self._running.get(delivery)
            if running is not None:
                running.interrupt(JobCancelled)

    def drain(self, must_stop_now: Callable[[float], bool]) -> list[Claimed]:
        """Return what has not begun, and wait for running jobs until `must_stop_now(since)`; returns those that are not
        done then."""
        since = time.monotonic()
        self._return_waiting(since)
        with self._changed:
            while self._running and not must_stop_now(since):
                self._changed.wait(WATCH_INTERVAL)
            self._stopping.set()
            left = [running.claimed for running in self._running.values()]
        self._trusted.shutdown(wait=False, cancel_futures=True)
        self._loops.stop()
        return left

    def _run(self, running: Any) -> None:
        """In the delivery's thread: run the job, then start the next waiting delivery."""
        try:
            result = running.run()
        except BaseException as error:  # noqa: BLE001 - our own fault, since `run` raises nothing of the job's
            result = fault(running.claimed, error)
        self._finished(running, result)

    def _finished(self, running: RunningJob, result: RunResult) -> None:
        """In the delivery's thread or loop: pass on how it ended, then start the next waiting delivery."""
        if self._end(running, result):
            self._start_waiting()
            return
        with self._changed:  # it was given up meanwhile, and has ended after all
            self.lost -= 1
            self._changed.notify_all()

    def _end(self, running: RunningJob, result: RunResult, *, lost: bool = False) -> bool:
        """Pass on how a delivery ended, and free its slot unless its end is to be written before; False if that was
        done already. `lost`: its thread still runs."""
        key = (running.claimed.id, running.claimed.delivery)
        with self._changed:
            if running.ended:
                return False
            running.ended = True
            self.lost += lost
            self._ended_at = time.monotonic()
            self._run_time += (self._ended_at - running.begun_at - self._run_time) * NEWEST
            self._exact -= running.is_exact
            if running.settles_before_next:
                self._unwritten.add(key)
        self._on_end(Ended(running.claimed, result))
        with self._changed:
            del self._running[key]
            if not running.settles_before_next:
                self._taken -= 1
                self._changed.notify_all()
        return True

    def written(self, deliveries: Iterable[tuple[int, int]]) -> None:
        """The ends of these are written: free the slots that they have kept."""
        with self._changed:
            kept = self._unwritten.intersection(deliveries)
            if not kept:
                return
            self._unwritten -= kept
            self._taken -= len(kept)
            self._changed.notify_all()
        self._start_waiting()

    def _return_waiting(self, before: float) -> None:
        """Return the deliveries that were claimed `before` that moment and have no slot yet. The jobs before them take
        longer than those did by which they were claimed."""
        with self._changed:
            late = [running for running in self._waiting if running.claimed_at <= before]
            for running in late:
                self._waiting.remove(running)
                self._exact -= running.is_exact
                running.ended = True
        for running in late:
            self._on_end(Ended(running.claimed, _no_slot(running.claimed)))
        with self._changed:
            for running in late:
                del self._running[running.claimed.id, running.claimed.delivery]

    def _watch_deadlines(self) -> None:
        while not self._stopping.wait(WATCH_INTERVAL):
            self._return_waiting(time.monotonic() - LONGEST_WAIT)
            try:
                self._loops.check(time.monotonic())
            except Exception:
                log.exception("worker.loops_unwatched")
            for running in list(self._running.values()):
                try:
                    self._check_deadline(running, time.monotonic())
                except Exception:
                    log.exception("worker.deadline_unwatched", job=running.claimed.job.uid)

    def _check_deadline(self, running: RunningJob, now: float) -> None:
        if running.deadline is not None and now > running.deadline:
            running.interrupt(JobTimedOut)
        running.repeat(REPEAT_INTERVAL)
        if running.interrupted_at is not None and now - running.interrupted_at > STUCK_AFTER:
            job = running.claimed.job
            events.emit(events.ThreadStuck(job.uid, job.type, round(now - running.interrupted_at, 1)))
            if self._end(running, running.verdict(), lost=True):
                self._start_waiting()


def _no_slot(claimed: Claimed) -> RunResult:
    why = f"All slots of the worker {claimed.job.worker} were taken; it was not started."
    return replace(
        returned_to_others(why, CallOutcome("unused") if claimed.endpoint else None), category="", no_slot=True
    )


def _no_thread(claimed: Claimed, error: Exception) -> RunResult:
    events.emit(events.CapacityExhausted(claimed.job.uid, "thread", str(error)))
    return returned_to_others(f"The worker {claimed.job.worker} can't start a thread.")
