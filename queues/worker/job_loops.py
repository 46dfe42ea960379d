"""The event loops of a worker: one for all async jobs, and another for those that come while code of a job blocks that one."""

from __future__ import annotations

import threading
from collections.abc import Callable

from queues.deliveries import Claimed
from queues.registry import RunResult
from queues.worker.job_loop import LoopThread, RunningInLoop
from quotas import events

BLOCKED_AFTER = 1.0
"""Seconds after which a loop that does not answer gets no more jobs."""


class JobLoops:
    """Starts jobs in a loop. `on_end` gets each job that has ended."""

    def __init__(self, on_end: Callable[[RunningInLoop, RunResult], None]) -> None:
        self._on_end = on_end
        self._lock = threading.Lock()
        self._current: LoopThread | None = None
        self._blocked: set[LoopThread] = set()

    def running(self, claimed: Claimed) -> RunningInLoop:
        """A delivery that `start` can run."""
        return RunningInLoop(claimed, self._ended)

    def start(self, job: RunningInLoop) -> None:
        """Run a job. Raises RuntimeError if the system gives no more threads, OSError if no more files."""
        with self._lock:
            self._open().add(job)

    def _open(self) -> LoopThread:
        if self._current is None:
            thread = LoopThread()
            thread.start()
            self._current = thread
        return self._current

    def _ended(self, job: RunningInLoop, result: RunResult) -> None:
        assert job.thread is not None
        job.thread.jobs.discard(job)
        self._on_end(job, result)

    def check(self, now: float) -> None:
        """Start no more jobs in a loop that is blocked, and interrupt what blocks it if its job is to end."""
        with self._lock:
            for thread in self._all():
                seconds = thread.blocked_for(now)
                if seconds >= BLOCKED_AFTER:
                    self._is_blocked(thread, seconds)
                elif thread in self._blocked and not thread.jobs:
                    self._blocked.discard(thread)
                    thread.stop()

    def _all(self) -> list[LoopThread]:
        return [*self._blocked, *([self._current] if self._current else [])]

    def _is_blocked(self, thread: LoopThread, seconds: float) -> None:
        job = thread.running()
        if thread is self._current:
            self._current = None
            self._blocked.add(thread)
            if job is not None:
                events.emit(events.LoopBlocked(job.claimed.job.uid, job.claimed.job.type, round(seconds, 1)))
            for waiting in list(thread.jobs):  # what came after the loop was blocked, and before that was seen
                if waiting.leave(thread):
                    self._open().add(waiting)
        if job is not None:
            job.interrupt_blocking_code()

    def stop(self) -> None:
        """End all loops, whatever runs in them."""
        with self._lock:
            for thread in self._all():
                thread.stop()
            self._blocked.clear()
            self._current = None
