"""One job in a forked process of its own: begun, watched, ended by force where it must be."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable

from django.db import connections

from queues.registry import RunResult
from queues.states import Outcome
from queues.worker.claim import Claimed
from queues.worker.running import perform
from queues.worker.settle import Ended
from quotas import connection, events
from quotas.engine.types import Outcome as Upstream

PR_SET_PDEATHSIG = 1


class Child:
    """A claimed delivery in its own process. The process settles by itself; where it can't, `ending` is its end.

    Must be made in a process without threads: a fork would catch them in their locks.
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
        self.pid = os.fork()
        if self.pid == 0:
            _live(claimed, settle, parent)

    def ended(self) -> bool:
        """Whether the process is gone; asked until it is, and not after that."""
        done, status = os.waitpid(self.pid, os.WNOHANG)
        if not done:
            return False
        if status == 0:
            self.ending = None
        elif self.ending is None:
            self.ending = _died(self.claimed, status)
        return True

    def overdue(self) -> bool:
        return time.monotonic() - self.begun > self.claimed.context.timeout

    def end(self, ending: RunResult) -> None:
        """Kill it, for this reason; the first one counts."""
        if self.ending is None:
            self.ending = ending
            os.kill(self.pid, signal.SIGKILL)

    def abandon(self) -> None:
        """Kill it for no fault of its own, and wait until it is gone."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def _live(claimed: Claimed, settle: Callable[[list[Ended]], None], parent: int) -> None:
    """The job's own process; never returns."""
    code = 1
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        os.setpgrp()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        # The parent's sockets are the parent's.
        connection.forget()
        settle([Ended(claimed, perform(claimed))])
        code = 0
    finally:
        events.finish_all()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _died(claimed: Claimed, status: int) -> RunResult:
    how = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit code {os.WEXITSTATUS(status)}"
    return lost(claimed, f"Its process died ({how}).")


def lost(claimed: Claimed, error: str) -> RunResult:
    """Its process is gone, and nothing but itself was the cause."""
    upstream = Upstream("unknown") if claimed.endpoint else None
    return RunResult(Outcome.LOST, category="poison", error=error, counted=False, upstream=upstream)


def cancelled() -> RunResult:
    return RunResult(Outcome.CANCELLED, error="Cancelled while it ran.", counted=False, upstream=Upstream("unknown"))
