"""The processes that jobs start: they get default signal handling, and are killed with a job that is killed."""

from __future__ import annotations

import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import signal
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

_mask = threading.local()
"""Which signals the thread that forks had blocked before."""


def default_signals_in_children() -> None:
    """From now on a process that this one forks has Python's own handling of signals, and not this one's: a worker's
    handler would make it ignore SIGTERM. (`subprocess` needs none of this: an exec resets handlers.)

    Signals are blocked from before the fork until the handlers are reset: one that came in between would wait for
    a handler that is removed then.
    """
    os.register_at_fork(before=_block, after_in_parent=_unblock, after_in_child=_default_signals)


def _block() -> None:
    _mask.before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))


def _unblock() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _mask.before)


def _default_signals() -> None:
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    _unblock()


def started_by(thread: int) -> set[int]:
    """The live children that a thread of this process (its kernel id) has started, with all their descendants; none if
    the system does not say."""
    return _tree(_read(Path(f"/proc/self/task/{thread}/children"))) - _shared()


def _tree(pids: Iterable[int]) -> set[int]:
    found: set[int] = set()
    pending = list(pids)
    while pending:
        pid = pending.pop()
        if pid not in found:
            found.add(pid)
            for path in Path(f"/proc/{pid}/task").glob("*/children"):
                pending += _read(path)
    return found


def _read(path: Path) -> list[int]:
    try:
        return [int(word) for word in path.read_text().split()]
    except OSError:
        return []


def _shared() -> set[int]:
    """Processes of `multiprocessing` that belong to the whole worker, whichever job has started them first."""
    helpers: tuple[tuple[Any, str], ...] = (
        (multiprocessing.resource_tracker._resource_tracker, "_pid"),
        (multiprocessing.forkserver._forkserver, "_forkserver_pid"),
    )
    return {pid for helper, name in helpers if isinstance(pid := getattr(helper, name, None), int)}


def end(pids: Iterable[int], number: int) -> None:
    """Send a signal to each of the processes that still run."""
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def end_group(leader: int) -> None:
    """Kill a process and all of its group."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)
