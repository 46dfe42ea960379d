"""A process that can't outlive its parent: Linux's PR_SET_PDEATHSIG, prctl(2).

The signal is sent when the *thread* ends that started the child, and a child's own children don't inherit it. So it is
requested in children of the main thread only, and once more in each process that such a child forks (granian's
workers, RQ's work horses).
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable

SUPERVISED = "SLUICE_SUPERVISED"
"""Set in the environment of the children of `up`."""

_PR_SET_PDEATHSIG = 1
_prctl = ctypes.CDLL(None, use_errno=True).prctl if sys.platform == "linux" else None


def die_with(parent: int) -> None:
    """Request the kernel to kill this process when the thread that started it ends; at once if `parent` is gone already."""
    if _prctl is None:
        return
    if _prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def in_child() -> Callable[[], None]:
    """A `preexec_fn` for subprocess. The signal stays set over the exec; the caller must be the main thread."""
    parent = os.getpid()
    return lambda: die_with(parent)


def hand_down() -> None:
    """In a supervised process: whatever its main thread forks dies with it. Elsewhere nothing happens."""
    if not os.environ.get(SUPERVISED) or _prctl is None:
        return
    forking: list[int] = []

    def before() -> None:
        forking[:] = [os.getpid()] if threading.current_thread() is threading.main_thread() else []

    def after_in_child() -> None:
        if forking:
            die_with(forking[0])

    os.register_at_fork(before=before, after_in_child=after_in_child)
