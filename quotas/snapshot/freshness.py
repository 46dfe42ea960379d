"""How old a process's copy of the configuration may be, and who reads SQL when it has become too old.

    verified less than LOOK_EVERY ago    the copy is used
    up to PROMISE                        one thread looks at SQL's version, the others use the copy
    older                                all wait for that look: no thread uses a copy that may be too old

A look counts from the moment at which it began, so that a change that was committed before is in it. Where SQL does not
answer there is nothing to wait for: the copy is used until it does.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable

LOOK_EVERY = 0.5
"""Seconds between two looks."""
PROMISE = 0.9
"""Seconds after which a copy is not used unchecked. One second is promised; the rest is for the request's travel."""
MAX_WAIT = 2.0
"""Seconds to wait for a look of another thread. One that takes longer waits for a database that does not answer."""


class Freshness:
    """The age of one copy. Safe under threads.

    `look` compares the copy with SQL and brings it up to date; `failed` gets what it raised, and says whether the copy
    is to be used all the same.
    """

    def __init__(self, look: Callable[[], None], failed: Callable[[Exception], bool]) -> None:
        self._look = look
        self._failed = failed
        self._looked = float("-inf")
        self._expired = float("-inf")
        self._begin()
        _living.add(self)

    def _begin(self) -> None:
        """No look is in progress: a forked child has none of its parent's threads."""
        self._lock = threading.Lock()
        self.hung = False
        """Whether a look takes so long that other threads no longer wait for it."""

    @property
    def age(self) -> float:
        """Seconds since the last look began, an unanswered one included; infinite after `expire`."""
        return time.monotonic() - self._looked if self._looked > self._expired else float("inf")

    def expire(self) -> None:
        """Compare with SQL at the next use. A comparison that has begun does not count."""
        self._expired = time.monotonic()

    def ensure(self) -> None:
        """Return when the copy may be used. Raises what `look` raises, unless it is to be used all the same."""
        age = self.age
        if age < LOOK_EVERY:
            return
        if age < PROMISE or self.hung:
            if self._lock.acquire(blocking=False):
                self._renew_if(LOOK_EVERY)
        elif self._lock.acquire(timeout=MAX_WAIT):
            self._renew_if(PROMISE)
        else:
            self.hung = True

    def _renew_if(self, older: float) -> None:
        """The lock is acquired: look, unless another thread has done so meanwhile."""
        try:
            if self.age >= older:
                self._renew()
        finally:
            self.hung = False
            self._lock.release()

    def _renew(self) -> None:
        began = time.monotonic()
        try:
            self._look()
        except Exception as error:
            if not self._failed(error):
                raise
            began = time.monotonic()  # the timeout may have taken long
        self._looked = began


_living: weakref.WeakSet[Freshness] = weakref.WeakSet()


def _after_fork() -> None:
    for freshness in _living:
        freshness._begin()


os.register_at_fork(after_in_child=_after_fork)
