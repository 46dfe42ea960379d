"""Counts the gateway's calls in the process, and how many are in progress: a call costs no further round trip."""

from __future__ import annotations

import os
import socket
import threading
import time
from bisect import bisect_left

import redis
import structlog
from django.conf import settings

from quotas import events
from quotas.runtime import background
from quotas.runtime.counters import BufferedCounter, Field

OVERHEAD = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5)
FIRST_BYTE = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
WAIT = (0.01, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
OPEN_CALLS_TTL = 10.0
"""Seconds for which a process's number of open calls is believed."""
WRITE_INTERVAL = 1.0
log = structlog.get_logger(__name__)


counter = BufferedCounter("calls", most=100_000, life=None)
"""(family, labels.., bucket): `bucket` is an index of a histogram's bounds, or `sum`."""


class _Histogram:
    """The fields of one family of buckets, made once."""

    def __init__(self, family: str, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._buckets: list[Field] = [(family, str(place)) for place in range(len(bounds) + 1)]
        self._sum: Field = (family, "sum")

    def observed(self, value: float) -> tuple[tuple[Field, float], ...]:
        return (self._buckets[bisect_left(self._bounds, value)], 1), (self._sum, value)


_overhead, _first_byte = _Histogram("overhead", OVERHEAD), _Histogram("first_byte", FIRST_BYTE)
_wait = _Histogram("wait", WAIT)


def streams_key() -> str:
    return f"{settings.REDIS_PREFIX}:metrics:gateway:open"


def record(event: events.CallEnded) -> None:
    """A subscriber: counts a call, its times and its tokens."""
    sums: list[tuple[Field, float]] = [(("requests", event.pool, event.project, event.outcome), 1)]
    if event.attempts:
        sums += _overhead.observed(event.overhead)
    if event.first_byte is not None and event.outcome == "ok":
        sums += _first_byte.observed(event.first_byte)
    if event.waited:
        sums += _wait.observed(event.waited)
    if event.attempts > 1:
        sums.append((("failovers", event.pool), event.attempts - 1))
    for unit in ("tokens", "cached_tokens"):
        if used := event.actual.get(unit):
            sums.append(((unit, event.pool, event.project), used))
    counter.add_each(sums)


def record_rejected(event: events.CallRejected) -> None:
    """A subscriber."""
    counter.add([("requests", event.pool, "", "rejected")])


class OpenCalls:
    """How many calls of this process are in progress; written to Redis once a second, while there are any or were."""

    def __init__(self) -> None:
        self.open = 0
        self._pid = 0
        self._written = 0
        self._lock = threading.Lock()

    def began(self) -> None:
        self.open += 1
        if self._pid != os.getpid():
            with self._lock:
                if self._pid != os.getpid():
                    self._pid = os.getpid()
                    background.start("open-calls", self._write_in_a_while, threading.Event())

    def ended(self) -> None:
        self.open -= 1

    def _write_in_a_while(self) -> None:
        time.sleep(WRITE_INTERVAL)
        if not self.open and not self._written:
            return
        self._written = self.open
        try:
            with redis.Redis.from_url(settings.REDIS_URL, socket_timeout=1.0) as client:
                name = f"{socket.gethostname()}:{os.getpid()}"
                client.hset(streams_key(), name, f"{self.open} {_server_time(client):.0f}")
                client.expire(streams_key(), 60)
        except redis.RedisError as error:
            log.info("metrics.open_calls_unwritten", error=type(error).__name__)


def open_calls() -> int:
    """Of all processes. Raises `redis.RedisError`."""
    with redis.Redis.from_url(settings.REDIS_URL, socket_timeout=2.0, decode_responses=True) as client:
        found: dict[str, str] = client.hgetall(streams_key())
        now = _server_time(client)
    entries = [value.split() for value in found.values()]
    return sum(int(number) for number, at in entries if now - float(at) < OPEN_CALLS_TTL)


def _server_time(client: redis.Redis) -> float:
    """Redis's own time: hosts may differ in theirs."""
    seconds, micros = client.time()
    return float(seconds) + micros / 1e6


streams = OpenCalls()


def connect() -> None:
    events.subscribe(events.CallEnded, record)
    events.subscribe(events.CallRejected, record_rejected)
