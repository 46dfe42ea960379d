"""Sums that all processes add to: kept in memory, added up in a hash in Redis once a second, read for `/metrics`."""

from __future__ import annotations

import atexit
import json
import os
import threading
from collections.abc import Callable, Iterable, Mapping

import redis
import structlog
from django.conf import settings

from quotas.runtime import background

EVERY = 1.0
log = structlog.get_logger(__name__)
Name = tuple[str | int, ...]
"""As a JSON list it is the name of a field of the hash."""


class SharedSums:
    """Safe under threads and forks. `name` is the thread's; `key` gives the key of the hash."""

    def __init__(self, name: str, key: Callable[[], str]) -> None:
        self._name, self._key = name, key
        self._lock = threading.Lock()
        self._sums: dict[Name, float] = {}
        self._pid = 0

    def add(self, names: Iterable[Name], amounts: Mapping[Name, float] | None = None) -> None:
        """Add 1 to each of `names`, and to others what `amounts` says. Never blocks on Redis."""
        with self._lock:
            if self._pid != os.getpid():
                self._begin()
            sums = self._sums
            for name in names:
                sums[name] = sums.get(name, 0) + 1
            for name, amount in (amounts or {}).items():
                sums[name] = sums.get(name, 0.0) + amount

    def flush(self) -> None:
        """Add to Redis what was counted; where it does not answer, the counts are kept for the next time."""
        with self._lock:
            sums, self._sums = self._sums, {}
        if not sums:
            return
        try:
            with (
                redis.Redis.from_url(settings.REDIS_URL, socket_timeout=1.0) as client,
                client.pipeline(transaction=True) as pipeline,
            ):
                for name, amount in sums.items():
                    pipeline.hincrbyfloat(self._key(), json.dumps(name), amount)
                pipeline.execute()
        except redis.RedisError as error:
            log.warning("metrics.counts_kept", error=type(error).__name__)
            with self._lock:
                for name, amount in sums.items():
                    self._sums[name] = self._sums.get(name, 0) + amount

    def read(self) -> list[tuple[list[str | int], float]]:
        """All that was added up, by name. Raises `redis.RedisError`."""
        self.flush()
        with redis.Redis.from_url(settings.REDIS_URL, socket_timeout=2.0, decode_responses=True) as client:
            sums: dict[str, str] = client.hgetall(self._key())  # type: ignore[assignment]
        return [(json.loads(name), float(value)) for name, value in sorted(sums.items())]

    def _begin(self) -> None:
        """The first count of this process: what a parent counted is the parent's."""
        self._pid = os.getpid()
        self._sums.clear()
        stop = threading.Event()
        background.start(self._name, lambda: self._flush_in_a_while(stop), stop)
        atexit.register(stop.set)
        atexit.register(self.flush)

    def _flush_in_a_while(self, stop: threading.Event) -> None:
        if not stop.wait(EVERY):
            self.flush()
