"""A thread that the worker can't do without: its process ends if the thread does."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import structlog

from quotas.runtime.kept_connections import keep

log = structlog.get_logger(__name__)

EXIT_STATUS = 70
"""EX_SOFTWARE of sysexits.h."""


class VitalThread(threading.Thread):
    """Runs `target` for as long as the worker runs. If it raises, the whole process ends: a worker that completes
    nothing or enforces no deadline would only take jobs away from the others.

    `before_exit` is called before that, to write that the worker has stopped.
    """

    def __init__(self, target: Callable[[], None], name: str, before_exit: Callable[[], None]) -> None:
        super().__init__(name=name, daemon=True)
        self._work = target
        self._before_exit = before_exit

    def run(self) -> None:
        try:
            keep()
            self._work()
        except BaseException:  # noqa: BLE001 - whatever ended it ends the process
            try:
                log.critical("worker.thread_died", thread=self.name, exc_info=True)
                self._before_exit()
            finally:
                os._exit(EXIT_STATUS)
