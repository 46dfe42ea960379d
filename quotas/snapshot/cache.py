"""A part of the configuration in memory, no older than what `quotas.snapshot.freshness` promises, without a query per use."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

import structlog
from django.db import DatabaseError, InterfaceError

from quotas.models.config_version import ConfigVersion
from quotas.runtime.threads import off_loop
from quotas.snapshot.freshness import Freshness

T = TypeVar("T")
log = structlog.get_logger(__name__)


class Snapshot(Generic[T]):
    """What `load` made of SQL at some `ConfigVersion`; loaded anew when that number has changed.

    Where SQL does not answer the last one is used. Safe under threads.
    """

    def __init__(self, load: Callable[[], T]) -> None:
        self._load = load
        self._lock = threading.Lock()
        self._value: T | None = None
        self._freshness = Freshness(lambda: off_loop(self._refresh), self._unanswered)
        self.version = -1

    def get(self) -> T:
        """The present value. The first call loads it; what SQL raises then goes to the caller."""
        self._freshness.ensure()
        value = self._value
        if value is None:
            with self._lock:
                if self._value is None:
                    off_loop(self._refresh)
                value = self._value
        assert value is not None
        return value

    def outdate(self) -> None:
        """Look at the version with the next use."""
        self._freshness.outdate()

    def forget(self) -> None:
        """Load anew at the next use, whatever the version says: another database stands behind it."""
        self._value = None
        self.version = -1
        self._freshness.outdate()

    def _refresh(self) -> None:
        # The version is read first: what changes between the two reads is loaded again at the next look.
        version = ConfigVersion.current()
        if self._value is None or version != self.version:
            self._value = self._load()
            self.version = version

    def _unanswered(self, error: Exception) -> bool:
        if not isinstance(error, DatabaseError | InterfaceError) or self._value is None:
            return False
        log.warning("snapshot.stale", error=type(error).__name__)
        return True
