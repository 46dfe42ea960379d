"""Runs one claimed delivery, and interrupts it at its deadline or when its job is cancelled."""

from __future__ import annotations

import os
import signal
import threading
import time
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from copy import copy
from operator import attrgetter
from typing import Any

from queues import event_loops, hops, registry
from queues.deliveries import Claimed
from queues.errors import JobCancelled, JobTimedOut
from queues.isolation import close_connections, in_fresh_context, refresh_connections
from queues.registry import RunResult
from queues.states import AttemptOutcome
from queues.worker import child_processes
from queues.worker.checked_result import checked, failed, fault
from queues.worker.failures import cancelled, timed_out, unknown_type, without_account
from quotas import tracing

FORKED_COPY = 71
"""Exit status of a copy of the worker that a task has forked and not ended by itself."""


class RunningJob(ABC):
    """A claimed delivery that runs in this process."""

    def __init__(self, claimed: Claimed) -> None:
        self.claimed = claimed
        self.trusted = registry.is_trusted(claimed.job.type)
        self.settles_before_next = registry.settles_before_next(claimed.job.type, claimed.job.delivery_mode)
        self.is_exact = self.settles_before_next or claimed.job.delivery_mode == "at_most_once"
        """Whether it is not to be claimed before it can start."""
        self.deadline: float | None = None
        """Monotonic seconds; None until it starts."""
        self.claimed_at = time.monotonic()
        self.begun_at = 0.0
        """Monotonic seconds when it got its slot."""
        self.interrupted_at: float | None = None
        """Monotonic seconds of the first interrupt."""
        self.ended = False
        """Whether its end was passed on; its thread may still run."""
        self._why: type[BaseException] | None = None
        self._sent_at = float("-inf")
        self._lock = threading.Lock()
        self._done = False

    @abstractmethod
    def _send(self, number: int) -> None:
        """Interrupt it for the reason `_why`; `number` is the signal for processes that it has started."""

    def interrupt(self, why: type[BaseException]) -> None:
        """End it at the next place where that can be done, and never after it has ended. The first reason counts;
        `repeat` interrupts it again where the task has caught that."""
        with self._lock:
            if self._done or self._why is not None or self.deadline is None:
                return
            self._why, self.interrupted_at = why, time.monotonic()
            self._sent_at = self.interrupted_at
            self._send(signal.SIGTERM)

    def repeat(self, after: float) -> None:
        """Interrupt it once more if the last interrupt was `after` seconds ago and it still runs."""
        with self._lock:
            if not self._done and self._why is not None and time.monotonic() - self._sent_at >= after:
                self._sent_at = time.monotonic()
                self._send(signal.SIGKILL)

    def verdict(self) -> RunResult:
        """The result of an interrupted delivery."""
        return cancelled(self.claimed) if self._why is JobCancelled else timed_out(self.claimed)


class Running(RunningJob):
    """A claimed delivery that runs in a thread."""

    def __init__(self, claimed: Claimed) -> None:
        super().__init__(claimed)
        self._thread: int | None = None
        self._native: int | None = None

    def _send(self, number: int) -> None:
        assert self._thread is not None and self._why is not None
        event_loops.interrupt(self._thread, self._why)
        if not self.trusted and self._native is not None:
            # It may wait for one of these processes, where no interrupt reaches it.
            child_processes.end(child_processes.started_by(self._native), number)

    def run(self) -> RunResult:
        """Run the job in this thread. Whatever happens, there is a result."""
        begun = time.monotonic()
        worker = os.getpid()
        try:
            try:
                with self._lock:
                    self._thread, self._native = threading.get_ident(), threading.get_native_id()
                    self.deadline = begun + self.claimed.context.timeout
                if self.trusted:
                    refresh_connections()
                result = in_fresh_context(lambda: perform(self.claimed))
            finally:
                # From this lock on nothing interrupts; an interrupt sent just before it is raised inside this `try`.
                with self._lock:
                    self._done = True
                _raise_pending_interrupt()
        except (JobTimedOut, JobCancelled):
            result = self.verdict()
        except BaseException as error:  # noqa: BLE001 - in a thread it would end nothing and settle nothing
            result = fault(self.claimed, error)
        if os.getpid() != worker:
            os._exit(FORKED_COPY)  # a process that the task has forked came back from it: the worker's own is another
        self._clean_up()
        return result

    def _clean_up(self) -> None:
        if self.trusted:
            refresh_connections()
            return
        close_connections()
        if self._why is not None and self._native is not None:
            child_processes.end(child_processes.started_by(self._native), signal.SIGKILL)


def _raise_pending_interrupt() -> None:
    """A Python call, at which a pending interrupt is raised."""


def perform(claimed: Claimed) -> RunResult:
    """Run the job's type; what it raises becomes a failed attempt."""
    with traced(claimed) as span:
        result = _perform(claimed)
        span.note({"job.outcome": str(result.outcome)}, error=result.category or "")
        return result


def traced(claimed: Claimed) -> AbstractContextManager[tracing.Span]:
    """The span of this attempt."""
    job = claimed.job
    return tracing.of_job(
        job.uid, job.type, {"job.id": job.uid, "job.attempt": claimed.context.attempt}, job.created_at
    )


def _perform(claimed: Claimed) -> RunResult:
    job_type = job_type_of(claimed)
    if isinstance(job_type, RunResult):
        return job_type
    try:
        # A copy: a task may set anything in it, and settling uses the original.
        return usable(job_type.run(copy(claimed.context), claimed.job.payload), claimed)
    except (JobTimedOut, JobCancelled):
        raise
    except BaseException as error:  # noqa: BLE001 - also SystemExit and the like: they fail the attempt
        return failed(claimed, error)


def job_type_of(claimed: Claimed) -> registry.JobType | RunResult:
    """The job's type; a result if the job can't run here now."""
    job = claimed.job
    job_type = registry.get(job.type)
    if job_type is None:
        return unknown_type(claimed)
    if job.account_lease and claimed.endpoint is None:
        return without_account("Its account was removed.")
    if job_type.needs_pool and claimed.endpoint is None:
        return without_account("Its queue names no pool any more.")
    if hops.observer is not None:
        hops.observer(hops.STARTED)
    return job_type


def usable(result: Any, claimed: Claimed) -> RunResult:
    """`result` as it can be used; most are a success that says nothing but its value, so that there is nothing to check."""
    if _is_plain(result, claimed):
        return RunResult(AttemptOutcome.SUCCEEDED, result=result.result)
    return checked(result, claimed)


_beside_result = attrgetter(
    "outcome",
    "category",
    "error",
    "traceback",
    "status",
    "retry_after",
    "counted",
    "upstream",
    "actual",
    "returned",
    "final",
)
_PLAIN = _beside_result(RunResult(AttemptOutcome.SUCCEEDED))
_PLAIN_TYPES = list(map(type, _PLAIN))


def _is_plain(result: Any, claimed: Claimed) -> bool:
    if claimed.endpoint is not None or type(result) is not RunResult:
        return False
    said = _beside_result(result)
    # Types first: a task may have set anything, which may compare by code of its own.
    return list(map(type, said)) == _PLAIN_TYPES and said == _PLAIN
