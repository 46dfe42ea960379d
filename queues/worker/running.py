"""One job in one thread, with the means to end it from outside."""

from __future__ import annotations

import ctypes
import threading
import time
import traceback
from dataclasses import replace

import structlog

from queues import loops, registry
from queues.errors import JobCancelled, JobTimedOut
from queues.registry import RunResult
from queues.states import Outcome
from queues.worker.claim import Claimed
from quotas.engine.types import Outcome as Upstream
from quotas.models.encrypted import CredentialUnreadable

log = structlog.get_logger(__name__)

LONGEST_ERROR, LONGEST_UPSTREAM_ERROR, LONGEST_TRACEBACK = 2000, 300, 20_000
"""Characters that are kept: of a traceback the last ones."""


class Running:
    """A claimed delivery on its way through a thread."""

    def __init__(self, claimed: Claimed) -> None:
        self.claimed = claimed
        self.deadline: float | None = None
        """Monotonic seconds; None until it starts."""
        self._lock = threading.Lock()
        self._thread: int | None = None
        self._done = False
        self._interrupted = False

    def interrupt(self, why: type[BaseException]) -> None:
        """Raise `why` in the job's thread at its next Python instruction; once, and never after it has ended."""
        with self._lock:
            if self._done or self._interrupted or self._thread is None:
                return
            self._interrupted = True
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._thread), ctypes.py_object(why))
            loops.wake(self._thread)

    def run(self) -> RunResult:
        """Do the job here and now. Whatever happens, there is a result."""
        begun = time.monotonic()
        try:
            try:
                with self._lock:
                    self._thread = threading.get_ident()
                    self.deadline = begun + self.claimed.context.timeout
                result = perform(self.claimed)
            finally:
                # Behind this lock nobody interrupts; an interrupt sent just before it is raised inside this `try`.
                with self._lock:
                    self._done = True
                _breathe()
        except JobTimedOut:
            result = timed_out(self.claimed)
        except JobCancelled:
            result = RunResult(
                Outcome.CANCELLED, error="Cancelled while it ran.", counted=False, upstream=_unknown(self.claimed)
            )
        return result


def _breathe() -> None:
    """A Python call, at which a pending interrupt is raised."""


def timed_out(claimed: Claimed) -> RunResult:
    error = f"Not done within {claimed.context.timeout:g} s."
    upstream = Upstream("timeout", error=error) if claimed.endpoint else None
    return RunResult(Outcome.FAILED, category="timeout", error=error, upstream=upstream)


def _unknown(claimed: Claimed) -> Upstream | None:
    return Upstream("unknown") if claimed.endpoint else None


def perform(claimed: Claimed) -> RunResult:
    """Run the job's type; what it raises becomes a failed attempt."""
    job = claimed.job
    job_type = registry.get(job.type)
    if job_type is None:
        return not_here(f"No job type {job.type!r} is known to the worker {job.worker}.", _unused(claimed))
    if job.account_lease and claimed.endpoint is None:
        # Its account was taken away between admission and start: back in line, for another one.
        return RunResult(
            Outcome.RATE_LIMITED, category="rate_limited", error="Its account was removed.", counted=False,
        )  # fmt: skip
    if job_type.needs_pool and claimed.endpoint is None:
        # The queue's pool was removed between admission and start: back in line, where it waits for one.
        return RunResult(
            Outcome.RATE_LIMITED, category="rate_limited", error="Its queue names no pool any more.", counted=False,
        )  # fmt: skip
    try:
        return _told(job_type.run(claimed.context, job.payload), claimed)
    except CredentialUnreadable as error:
        return RunResult(Outcome.FAILED, category="auth", error=str(error), upstream=_unused(claimed))
    except (JobTimedOut, JobCancelled):
        raise
    except BaseException as error:
        # A job type of ours lets nothing through that it foresees; this is a fault, told with its traceback. Also what
        # is no `Exception`, such as `sys.exit()` in a task: in a thread it would end nothing and settle nothing.
        failed = RunResult(
            Outcome.FAILED,
            category="code",
            error=f"{type(error).__name__}: {error}",
            traceback=traceback.format_exc(),
            upstream=_unknown(claimed),
        )
        told = _told(failed, claimed)
        log.error("job.fault", job=job.uid, type=job.type, traceback=told.traceback)
        return told


def _told(result: RunResult, claimed: Claimed) -> RunResult:
    """The result with errors as they may be kept. What a client raises may hold the address or the header field of the
    call, and in it the account's credential: that goes first, since a half of it would not be known any more."""
    if not (result.error or result.traceback):
        return result
    redact = claimed.endpoint.redact if claimed.endpoint else str
    upstream = result.upstream
    if upstream is not None and upstream.error:
        upstream = replace(upstream, error=redact(upstream.error)[:LONGEST_UPSTREAM_ERROR])
    return replace(
        result,
        error=redact(result.error)[:LONGEST_ERROR],
        traceback=redact(result.traceback)[-LONGEST_TRACEBACK:],
        upstream=upstream,
    )


def not_here(why: str, upstream: Upstream | None = None) -> RunResult:
    """This process lacks what the job needs (it began before a deployment, perhaps): another one may have it."""
    return RunResult(Outcome.LOST, category="code", error=why, counted=False, upstream=upstream, returned=True)


def _unused(claimed: Claimed) -> Upstream | None:
    return Upstream("unused") if claimed.endpoint else None
