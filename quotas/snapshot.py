"""Configuration in memory, no older than half a second, without a query per use."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

import structlog
from django.db import DatabaseError

from quotas.models.config_version import ConfigVersion
from quotas.threads import off_loop

T = TypeVar("T")
log = structlog.get_logger(__name__)


class Snapshot(Generic[T]):
    """What `load` made of SQL at some `ConfigVersion`; loaded anew when that number has changed.

    One thread at a time looks; the others go on with what there is. Where SQL is away the old one serves on.
    """

    MAX_AGE = 0.5
    """Seconds between two looks at the version."""

    def __init__(self, load: Callable[[], T]) -> None:
        self._load = load
        self._lock = threading.Lock()
        self._value: T | None = None
        self._looked = float("-inf")
        self.version = -1

    def get(self) -> T:
        """The present value. The first call loads it; what SQL raises then goes to the caller."""
        if self._value is None:
            with self._lock:
                if self._value is None:
                    off_loop(self._refresh)
        elif time.monotonic() - self._looked >= self.MAX_AGE and self._lock.acquire(blocking=False):
            try:
                off_loop(self._refresh)
            except DatabaseError as error:
                self._looked = time.monotonic()
                log.warning("snapshot.stale", error=type(error).__name__)
            finally:
                self._lock.release()
        assert self._value is not None
        return self._value

    def outdate(self) -> None:
        """Look at the version with the next use."""
        self._looked = float("-inf")

    def forget(self) -> None:
        """Load anew at the next use, whatever the version says: another database stands behind it."""
        with self._lock:
            self._value = None

    def _refresh(self) -> None:
        # The version is read first: what changes between the two reads is loaded again at the next look.
        version = ConfigVersion.current()
        if self._value is None or version != self.version:
            self._value = self._load()
            self.version = version
        self._looked = time.monotonic()
