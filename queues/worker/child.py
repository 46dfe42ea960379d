"""One job in a forked process of its own: begun, watched, ended by force where it must be."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress

import structlog
from django.db import connections

from queues import settlement
from queues.deliveries import Claimed, Ended
from queues.isolation import close_connections, in_fresh_context
from queues.registry import RunResult
from queues.states import AttemptOutcome
from queues.worker.child_processes import end_group
from queues.worker.running import FORKED_COPY, perform
from quotas import events
from quotas.engine.types import CallOutcome
from quotas.runtime import connection

log = structlog.get_logger(__name__)

PR_SET_PDEATHSIG = 1


SETTLED = b"settled"


class Child:
    """A claimed delivery in its own process. The process settles by itself; where it can't, `ending` is its end.

    Must be made in a process without threads: a fork would catch them in their locks. Raises OSError where the system
    gives no more processes.
    """

    def __init__(self, claimed: Claimed, settle: Callable[[list[Ended]], None]) -> None:
        self.claimed = claimed
        self.begun = time.monotonic()
        self.ending: RunResult | None = None
        """How it ended, where it was killed for a reason or died; None where it has settled by itself."""
        connections.close_all()
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        # An exit status proves nothing: a task can end its process with any. What is said here comes after the settle.
        self._said, say = os.pipe()
        try:
            self.pid = os.fork()
        except OSError:
            os.close(self._said)
            os.close(say)
            raise
        if self.pid == 0:
            _live(claimed, settle, parent, say)
        os.close(say)
        os.set_blocking(self._said, False)
        with suppress(OSError):  # the child does so, too: whoever is first
            os.setpgid(self.pid, self.pid)

    def ended(self) -> bool:
        """Whether the process is gone; asked until it is, and not after that."""
        try:
            if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                return False
        except ChildProcessError:  # somebody else has waited for it: a module of tasks that ignores SIGCHLD
            settled, how = self._has_settled(), "an unknown status"
        else:
            settled = self._has_settled()
            if not settled:
                end_group(self.pid)  # before it is waited for: until then no other group has its number
            how = _how(os.waitpid(self.pid, 0)[1])
        if settled:
            self.ending = None
        elif self.ending is None:
            self.ending = lost(self.claimed, f"Its process died ({how}).")
        return True

    def _has_settled(self) -> bool:
        try:
            return os.read(self._said, len(SETTLED)) == SETTLED
        except BlockingIOError:  # a process that it has started goes on
            return False
        finally:
            os.close(self._said)

    def overdue(self) -> bool:
        return time.monotonic() - self.begun > self.claimed.context.timeout

    def end(self, ending: RunResult) -> None:
        """Kill it and what it has started, for this reason; the first one counts."""
        if self.ending is None:
            self.ending = ending
            end_group(self.pid)

    def abandon(self) -> None:
        """Kill it for no fault of its own, and wait until it is gone."""
        end_group(self.pid)
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        os.close(self._said)


def _live(claimed: Claimed, settle: Callable[[list[Ended]], None], parent: int, say: int) -> None:
    """The job's own process; never returns."""
    code = 1
    process = os.getpid()
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        os.setpgid(0, 0)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        # The parent's sockets are the parent's.
        connection.forget()
        settlement.forget()
        result = in_fresh_context(lambda: perform(claimed))
        if os.getpid() != process:
            os._exit(FORKED_COPY)  # a process that the task has forked came back from it
        close_connections()
        settle([Ended(claimed, result)])
        with suppress(OSError):  # closed by the task; then the parent settles once more, which changes nothing
            os.write(say, SETTLED)
        code = 0
        _pay()
    except BaseException:
        log.exception("worker.job_process_failed", job=claimed.job.uid)
    finally:
        _leave(code)


def _leave(code: int) -> None:
    """End this process, whatever state the task has left it in: it is a copy of the worker, and must not go on as
    one."""
    try:
        for finish in (events.finish_all, lambda: sys.stdout.flush(), lambda: sys.stderr.flush()):
            try:
                finish()
            except Exception as error:
                log.warning("worker.job_process_unfinished", error=type(error).__name__)
    finally:
        os._exit(code)


def _pay() -> None:
    """Slots that could not be given back are tried again for some seconds: nobody else knows of them."""
    for _ in range(5):
        if not settlement.retry_unsettled():
            return
        time.sleep(1.0)


def _how(status: int) -> str:
    return f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit code {os.WEXITSTATUS(status)}"


def lost(claimed: Claimed, error: str) -> RunResult:
    """Its process is gone, and nothing but itself was the cause."""
    upstream = CallOutcome("unknown") if claimed.endpoint else None
    return RunResult(AttemptOutcome.LOST, category="poison", error=error, counted=False, upstream=upstream)


def cancelled() -> RunResult:
    return RunResult(
        AttemptOutcome.CANCELLED, error="Cancelled while it ran.", counted=False, upstream=CallOutcome("unknown")
    )
