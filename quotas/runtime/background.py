"""Threads that last as long as their process: a pass that fails is logged, and the next one comes.

An unexpected exception (a fault of ours, a library's) has one of two effects: a thread that only counts or reports
continues, also inside other people's programs; a thread without which the process claims work that it doesn't do ends
the process, which its supervisor then starts again.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import structlog

from quotas.runtime.kept_connections import keep

log = structlog.get_logger(__name__)

FAILURE_PAUSE = 1.0
"""Seconds after a pass that failed."""
DIED = 70
"""Exit status of a process that lost such a thread (EX_SOFTWARE, sysexits.h)."""


def start(name: str, work: Callable[[], None], stop: threading.Event, *, vital: bool = False) -> threading.Thread:
    """Run `work` again and again until `stop` is set; it waits by itself. `vital`: the thread's end ends the process."""
    thread = threading.Thread(target=_run, args=(name, work, stop, vital), name=name, daemon=True)
    thread.start()
    return thread


def _run(name: str, work: Callable[[], None], stop: threading.Event, vital: bool) -> None:
    keep()
    while not stop.is_set():
        try:
            work()
        except Exception:
            log.exception("thread.fault", thread=name)
            stop.wait(FAILURE_PAUSE)
        except BaseException:
            log.critical("thread.died", thread=name, exc_info=True)
            if vital:
                os._exit(DIED)
            stop.wait(FAILURE_PAUSE)
