"""Counts checks in the process, and adds the counts up in Redis once a second: a check costs no further round trip."""

from __future__ import annotations

import atexit
import json
import os
import threading
from bisect import bisect_left
from collections import Counter

import redis
import structlog
from django.conf import settings

from quotas import events

BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
EVERY = 1.0
log = structlog.get_logger(__name__)


def key() -> str:
    return f"{settings.REDIS_PREFIX}:metrics:checks"


class CheckCounts:
    """Safe under threads and forks. Field names in Redis are JSON lists: [family, labels.., part]."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sums: Counter[str] = Counter()
        self._pid = 0

    def record(self, event: events.LimitsChecked) -> None:
        """A subscriber: notes each policy's part in each decision, and the time that the call took."""
        names = []
        for decision in event.decisions:
            for state in decision.limits:
                if decision.allowed:
                    outcome = "allowed" if state.allowed else "shadow_denied"
                elif not state.allowed and state.mode != "shadow":
                    outcome = "denied"
                else:
                    continue  # another policy refused: nothing was charged here
                names.append(f'["total", {json.dumps(state.policy)}, "{state.scope}", "{outcome}"]')
        with self._lock:
            if self._pid != os.getpid():
                self._begin()
            self._sums.update(names)
            self._sums[f'["seconds", {bisect_left(BOUNDS, event.seconds)}]'] += 1
            self._sums['["seconds", "sum"]'] += event.seconds  # type: ignore[assignment]

    def flush(self) -> None:
        """Add to Redis what was counted; where it does not answer, the counts are kept for the next time."""
        with self._lock:
            sums, self._sums = self._sums, Counter()
        if not sums:
            return
        try:
            with (
                redis.Redis.from_url(settings.REDIS_URL, socket_timeout=1.0) as client,
                client.pipeline(transaction=True) as pipeline,
            ):
                for name, amount in sums.items():
                    pipeline.hincrbyfloat(key(), name, amount)
                pipeline.execute()
        except redis.RedisError as error:
            log.warning("metrics.counts_kept", error=type(error).__name__)
            with self._lock:
                self._sums.update(sums)

    def _begin(self) -> None:
        """The first count of this process: what a parent counted is the parent's."""
        self._pid = os.getpid()
        self._sums.clear()
        stop = threading.Event()
        threading.Thread(target=self._keep_flushing, args=(stop,), name="check-counts", daemon=True).start()
        atexit.register(stop.set)
        atexit.register(self.flush)

    def _keep_flushing(self, stop: threading.Event) -> None:
        while not stop.wait(EVERY):
            self.flush()


counts = CheckCounts()


def connect() -> None:
    events.subscribe(events.LimitsChecked, counts.record)
