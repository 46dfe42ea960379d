"""Runs one job in a forked process of its own, checks it, and kills it if it must be."""

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
from queues.worker.child_processes import end_group
from queues.worker.failures import process_lost
from queues.worker.running import FORKED_COPY, perform
from quotas import events
from quotas.runtime import connection

log = structlog.get_logger(__name__)

PR_SET_PDEATHSIG = 1


SETTLED = b"settled"


class Child:
    """A claimed delivery in its own process. The process settles it; if it could not, `ending` is the result.

    Must be made in a process without threads: a fork would copy their locks. Raises OSError if the system can start no
    more processes.
    """

    def __init__(self, claimed: Claimed, settle: Callable[[list[Ended]], None]) -> None:
        self.claimed = claimed
        self.begun = time.monotonic()
        self.ending: RunResult | None = None
        """The result of one that was killed or crashed; None if the process has settled."""
        connections.close_all()
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        # An exit status proves nothing: a task can end its process with any. This pipe is written after the settling.
        self._settled_read, settled_write = os.pipe()
        try:
            self.pid = os.fork()
        except OSError:
            os.close(self._settled_read)
            os.close(settled_write)
            raise
        if self.pid == 0:
            _run_in_child(claimed, settle, parent, settled_write)
        os.close(settled_write)
        os.set_blocking(self._settled_read, False)
        with suppress(OSError):  # the child does the same: either may be first
            os.setpgid(self.pid, self.pid)

    def ended(self) -> bool:
        """Whether the process has ended; not to be called again after that."""
        try:
            if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                return False
        except ChildProcessError:  # already reaped: a module of tasks ignores SIGCHLD
            settled, how = self._has_settled(), "an unknown status"
        else:
            settled = self._has_settled()
            if not settled:
                end_group(self.pid)  # before it is reaped: until then no other group has its number
            how = _exit_text(os.waitpid(self.pid, 0)[1])
        if settled:
            self.ending = None
        elif self.ending is None:
            self.ending = process_lost(self.claimed, f"Its process died ({how}).")
        return True

    def _has_settled(self) -> bool:
        try:
            return os.read(self._settled_read, len(SETTLED)) == SETTLED
        except BlockingIOError:  # a process that it started is still running
            return False
        finally:
            os.close(self._settled_read)

    def overdue(self) -> bool:
        return time.monotonic() - self.begun > self.claimed.context.timeout

    def end(self, ending: RunResult) -> None:
        """Kill it and the processes that it started, for this reason; the first one counts."""
        if self.ending is None:
            self.ending = ending
            end_group(self.pid)

    def abandon(self) -> None:
        """Kill it because the worker stops, and wait until it has ended."""
        end_group(self.pid)
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        os.close(self._settled_read)


def _run_in_child(claimed: Claimed, settle: Callable[[list[Ended]], None], parent: int, settled_write: int) -> None:
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
        with suppress(OSError):  # closed by the task; then the parent settles again, which changes nothing
            os.write(settled_write, SETTLED)
        code = 0
        _retry_unsettled()
    except BaseException:
        log.exception("worker.job_process_failed", job=claimed.job.uid)
    finally:
        _leave(code)


def _leave(code: int) -> None:
    """End this process, whatever state the task has left it in: it is a copy of the worker and must not continue as one."""
    try:
        for finish in (events.finish_all, lambda: sys.stdout.flush(), lambda: sys.stderr.flush()):
            try:
                finish()
            except Exception as error:  # noqa: BLE001 - the process must end, whatever a last step raises
                log.warning("worker.job_process_unfinished", error=type(error).__name__)
    finally:
        os._exit(code)


def _retry_unsettled() -> None:
    """Settle again for some seconds what Redis did not take: no other process has these settlements."""
    for _ in range(5):
        if not settlement.retry_unsettled():
            return
        time.sleep(1.0)


def _exit_text(status: int) -> str:
    return f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit code {os.WEXITSTATUS(status)}"
