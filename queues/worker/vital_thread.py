"""A thread without which a worker must not go on."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import structlog

log = structlog.get_logger(__name__)

EXIT_STATUS = 70
"""EX_SOFTWARE of sysexits.h."""


class VitalThread(threading.Thread):
    """Runs `target` for as long as the worker lives. Should it end by an exception all the same, the whole process
    ends: a worker that settles nothing or watches no deadline would only take work away from the others.

    `last_words` is called before that, to report the worker as stopped.
    """

    def __init__(self, target: Callable[[], None], name: str, last_words: Callable[[], None]) -> None:
        super().__init__(name=name, daemon=True)
        self._work = target
        self._last_words = last_words

    def run(self) -> None:
        try:
            self._work()
        except BaseException:
            try:
                log.critical("worker.thread_died", thread=self.name, exc_info=True)
                self._last_words()
            finally:
                os._exit(EXIT_STATUS)
