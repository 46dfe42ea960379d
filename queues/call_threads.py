"""The threads of an async function's blocking calls, each call to be interrupted with its job."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

from queues.errors import JobCancelled
from queues.isolation import close_connections

NAME = "job-call"


def open_call_threads() -> int:
    """Threads of such calls that still exist, also after the end of their jobs."""
    return sum(thread.name.startswith(NAME) for thread in threading.enumerate())


class CallThreads(Executor):
    """At most `threads` threads for the blocking calls of one job, started when they are needed.

    One thread keeps its connections to SQL until `end`, as Django's ORM expects; of several, each call closes its own.
    """

    def __init__(self, threads: int = 1) -> None:
        self._threads = threads
        self._pool: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()
        self._busy: set[int] = set()
        self._ended = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix=NAME)
            return self._pool.submit(self._call, fn, *args, **kwargs)

    def _call(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        thread = threading.get_ident()
        try:
            with self._lock:
                if self._ended:
                    raise JobCancelled
                self._busy.add(thread)
            return fn(*args, **kwargs)
        finally:
            with self._lock:
                self._busy.discard(thread)
            if self._threads > 1:
                close_connections()
            _pass()  # an interrupt that was sent just before is raised here

    def interrupt(self, why: type[BaseException]) -> None:
        """Raise `why` in each call that runs."""
        with self._lock:
            for thread in self._busy:
                raise_in(thread, why)

    def end(self) -> None:
        """Begin no more calls, interrupt those that the job has left behind, and close the threads' connections."""
        self.interrupt(JobCancelled)
        with self._lock:
            if self._pool is not None and not self._ended:
                self._pool.submit(close_connections)
                self._pool.shutdown(wait=False)
            self._ended = True


def raise_in(thread: int, why: type[BaseException]) -> None:
    """Raise `why` in a thread at its next Python instruction."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(why))


def _pass() -> None:
    """A Python call, at which a pending exception is raised."""
