"""Counts checks in the process, and adds the counts up in Redis once a second: a check costs no further round trip."""

from __future__ import annotations

import atexit
import json
import os
import threading
from bisect import bisect_left

import redis
import structlog
from django.conf import settings

from quotas import events
from quotas.engine.types import LimitState
from quotas.runtime import background

BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
EVERY = 1.0
_BOUND_NAMES = [("seconds", place) for place in range(len(BOUNDS) + 1)]
_SECONDS = ("seconds", "sum")
log = structlog.get_logger(__name__)


def key() -> str:
    return f"{settings.REDIS_PREFIX}:metrics:checks"


class CheckCounts:
    """Safe under threads and forks. Field names in Redis are JSON lists: [family, labels.., part]."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sums: dict[tuple[str | int, ...], float] = {}
        self._pid = 0

    def record(self, event: events.LimitsChecked) -> None:
        """A subscriber: notes each policy's part in each decision, and the time that the call took."""
        names: list[tuple[str | int, ...]] = []
        for decision in event.decisions:
            for state in decision.limits:
                if decision.allowed:
                    outcome = _outcome(state, decision.bypassed)
                elif not state.allowed and state.mode != "shadow":
                    outcome = "denied"
                else:
                    continue  # another policy refused: nothing was charged here
                names.append(("total", state.policy, state.scope, outcome))
        names.append(_BOUND_NAMES[bisect_left(BOUNDS, event.seconds)])
        with self._lock:
            if self._pid != os.getpid():
                self._begin()
            sums = self._sums
            for name in names:
                sums[name] = sums.get(name, 0) + 1
            sums[_SECONDS] = sums.get(_SECONDS, 0.0) + event.seconds

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
                    pipeline.hincrbyfloat(key(), json.dumps(name), amount)
                pipeline.execute()
        except redis.RedisError as error:
            log.warning("metrics.counts_kept", error=type(error).__name__)
            with self._lock:
                for name, amount in sums.items():
                    self._sums[name] = self._sums.get(name, 0) + amount

    def _begin(self) -> None:
        """The first count of this process: what a parent counted is the parent's."""
        self._pid = os.getpid()
        self._sums.clear()
        stop = threading.Event()
        background.start("check-counts", lambda: self._flush_in_a_while(stop), stop)
        atexit.register(stop.set)
        atexit.register(self.flush)

    def _flush_in_a_while(self, stop: threading.Event) -> None:
        if not stop.wait(EVERY):
            self.flush()


def _outcome(state: LimitState, bypassed: bool) -> str:
    """A policy's part in a check that was allowed."""
    if state.allowed:
        return "allowed"
    return "bypassed" if bypassed and state.mode != "shadow" else "shadow_denied"


counts = CheckCounts()


def connect() -> None:
    events.subscribe(events.LimitsChecked, counts.record)
