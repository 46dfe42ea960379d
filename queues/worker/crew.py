"""The threads of a worker, what runs in them, and the thread that watches their deadlines."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from django.db import connections

from queues.errors import JobCancelled, JobTimedOut
from queues.registry import RunResult
from queues.worker.claim import Claimed
from queues.worker.running import Running
from queues.worker.settle import Ended

WATCH = 0.1
"""Seconds between two looks at the deadlines."""


class Crew:
    """`places` threads. `on_end` gets each delivery that has ended, from the thread in which it ran."""

    def __init__(self, places: int, on_end: Callable[[Ended], None]) -> None:
        self.places = places
        self._on_end = on_end
        self._pool = ThreadPoolExecutor(places, thread_name_prefix="job")
        self._running: dict[tuple[int, int], Running] = {}
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._watch = threading.Thread(target=self._watch_deadlines, name="deadlines", daemon=True)
        self._watch.start()

    def busy(self) -> int:
        """Deliveries in hand, those that wait for a thread included."""
        return len(self._running)

    def in_hand(self) -> set[int]:
        """The jobs of those deliveries."""
        return {pk for pk, _ in list(self._running)}

    def wait_for_place(self, seconds: float) -> bool:
        """True as soon as a thread is free; False after `seconds`."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self._running) < self.places, timeout=seconds)

    def take(self, claimed: Sequence[Claimed]) -> None:
        """Run these, side by side as far as there are threads."""
        for item in claimed:
            running = Running(item)
            with self._changed:
                self._running[item.id, item.delivery] = running
            self._pool.submit(self._run, running)

    def cancel(self, deliveries: Sequence[tuple[int, int]]) -> None:
        """Interrupt those of the deliveries that run here."""
        for delivery in deliveries:
            running = self._running.get(delivery)
            if running is not None:
                running.interrupt(JobCancelled)

    def drain(self, in_a_hurry: Callable[[float], bool]) -> list[Claimed]:
        """Wait for what runs until `in_a_hurry(since)` says that it is enough; returns what is not done then."""
        since = time.monotonic()
        with self._changed:
            while self._running and not in_a_hurry(since):
                self._changed.wait(WATCH)
            self._stopping.set()
            left = [running.claimed for running in self._running.values()]
        self._pool.shutdown(wait=False, cancel_futures=True)
        return left

    def _run(self, running: Running) -> None:
        result: RunResult = running.run()
        self._on_end(Ended(running.claimed, result))
        with self._changed:
            del self._running[running.claimed.id, running.claimed.delivery]
            self._changed.notify_all()
        if not running.claimed.context.lease:
            # A task may have used SQL; its thread's connection must not grow old in between.
            for connection in connections.all(initialized_only=True):
                connection.close_if_unusable_or_obsolete()

    def _watch_deadlines(self) -> None:
        while not self._stopping.wait(WATCH):
            now = time.monotonic()
            for running in list(self._running.values()):
                if running.deadline is not None and now > running.deadline:
                    running.interrupt(JobTimedOut)
