"""A part of the configuration in memory, no older than what `quotas.snapshot.freshness` promises, without a query per use."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

import structlog
from django.db import DatabaseError, InterfaceError

from quotas import events
from quotas.models.config_version import ConfigVersion
from quotas.runtime.threads import off_loop
from quotas.snapshot.freshness import Freshness

T = TypeVar("T")
log = structlog.get_logger(__name__)


class SnapshotCache(Generic[T]):
    """The value that `load` reads from SQL, loaded again when the version in `ConfigVersion` has changed.

    `update`: makes a new value of the present one where only adaptive limits have moved, from the number of moves.
    While SQL is unavailable the last value is used. Safe under threads.
    """

    def __init__(self, load: Callable[[], T], update: Callable[[T, int], T] | None = None) -> None:
        self._load = load
        self._update = update
        self._lock = threading.Lock()
        self._value: T | None = None
        self._freshness = Freshness(lambda: off_loop(self._refresh), self._use_stale)
        self.version = -1
        self._moved = -1

    def get(self) -> T:
        """The present value. The first call loads it, and raises what SQL raises."""
        self._freshness.ensure()
        value = self._value
        if value is None:
            with self._lock:
                if self._value is None:
                    off_loop(self._refresh)
                value = self._value
        assert value is not None
        return value

    def peek(self) -> tuple[T | None, float]:
        """The value in memory, and the seconds since it was compared with SQL. Never blocks: for event loops."""
        return self._value, self._freshness.age

    def expire(self) -> None:
        """Compare the version with SQL at the next use."""
        self._freshness.expire()

    def clear(self) -> None:
        """Load again at the next use, whatever the version is."""
        self._value = None
        self.version = self._moved = -1
        self._freshness.expire()

    def _refresh(self) -> None:
        # The version is read first: a change between the two reads is loaded again at the next comparison.
        version, moved = ConfigVersion.numbers()
        value = self._value
        if value is None or version != self.version:
            self._value = self._load()
        elif self._update is not None and moved != self._moved:
            self._value = self._update(value, moved)
        self.version, self._moved = version, moved

    def _use_stale(self, error: Exception) -> bool:
        if not isinstance(error, DatabaseError | InterfaceError) or self._value is None:
            return False
        events.emit(
            events.ServiceUnavailable(
                "configuration", f"reading it; version {self.version} stays in use", type(error).__name__
            )
        )
        return True
