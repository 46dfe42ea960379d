"""Counts that all processes add to: buffered in memory, and added up in Redis once a second.

    add() -> this process's memory -> one round trip of HINCRBY each second -> drain() by one process, or read() by any

So a check costs no further round trip, and a denied check writes nothing itself: a thread writes what it counted.
"""

from __future__ import annotations

import atexit
import json
import os
import threading
from collections.abc import Iterable, Mapping

import structlog

from quotas import events
from quotas.engine.errors import LimiterUnavailable
from quotas.engine.redis.scripts import pack
from quotas.engine.redis.transport import ScriptError, Transport
from quotas.runtime import background
from quotas.runtime.connection import limiter

FLUSH_EVERY = 1.0
"""Seconds between two flushes."""
UNREAD_LIFE = 3600
"""Seconds after which counts that are not drained are dropped."""
BATCH = 2_000
log = structlog.get_logger(__name__)
Field = tuple[str, ...]


class BufferedCounter:
    """Counts by field. Safe under threads and forks. While Redis is unavailable the counts stay in memory.

    `most`: fields that are counted apart between two flushes; the others are added to their `overflow_field`. `life`:
    seconds after the last flush at which Redis drops the counts; None: never.
    """

    def __init__(self, name: str, *, most: int = 10_000, life: int | None = UNREAD_LIFE) -> None:
        self.name = name
        self._most = most
        self._life = life
        self._lock = threading.Lock()
        self._flushing = threading.Lock()
        self._sums: dict[Field, float] = {}

    def add(self, fields: Iterable[Field], amount: float = 1) -> None:
        """Add `amount` to each field. Never waits for Redis."""
        self.add_each([(field, amount) for field in fields])

    def add_each(self, amounts: Iterable[tuple[Field, float]]) -> None:
        """Add to each field an amount of its own. Never waits for Redis."""
        with self._lock:
            _flusher.register(self)
            sums = self._sums
            for field, amount in amounts:
                if field not in sums and len(sums) >= self._most:
                    field = self.overflow_field(field)
                sums[field] = sums.get(field, 0) + amount

    @staticmethod
    def overflow_field(field: Field) -> Field:
        """The field that counts one field too many: the same one without its last part."""
        return (*field[:-1], "")

    def flush(self) -> None:
        """Add to Redis what was counted."""
        with self._flushing:
            with self._lock:
                sums, self._sums = self._sums, {}
            if not sums:
                return
            try:
                limiter().ask(lambda transport: self._write(transport, sums))
            except LimiterUnavailable as error:
                log.info("counter.flush_postponed", counter=self.name, error=str(error))
                with self._lock:
                    for field, amount in sums.items():
                        self._sums[field] = self._sums.get(field, 0) + amount

    def _write(self, transport: Transport, sums: Mapping[Field, float]) -> None:
        items = list(sums.items())
        for start in range(0, len(items), BATCH):
            commands = [self._increment(field, amount) for field, amount in items[start : start + BATCH]]
            if self._life is not None:
                commands.append(pack(("EXPIRE", self._key, self._life)))
            _raise_errors(transport.exchange(b"".join(commands), len(commands)))

    def _increment(self, field: Field, amount: float) -> bytes:
        command = "HINCRBY" if isinstance(amount, int) else "HINCRBYFLOAT"
        return pack((command, self._key, json.dumps(field), repr(amount)))

    def drain(self) -> dict[Field, int]:
        """Whole counts added up so far, which start again from zero. For one process at a time. Raises LimiterUnavailable."""
        if not limiter().ask(lambda transport: transport.exchange(pack(("EXISTS", self._key)), 1))[0]:
            return {}  # one command instead of five, on every idle instance
        return {field: int(amount) for field, amount in self._stored(("DEL", self._key))}

    def read(self) -> dict[Field, float]:
        """All that has been added up so far, which stays. Raises LimiterUnavailable."""
        return {field: float(amount) for field, amount in self._stored()}

    def _stored(self, *then: tuple[str, bytes]) -> list[tuple[Field, bytes]]:
        """The fields and amounts in Redis, read in one transaction with the commands that follow."""
        commands = (("MULTI",), ("HKEYS", self._key), ("HVALS", self._key), *then, ("EXEC",))

        def together(transport: Transport) -> tuple[list[bytes], list[bytes]]:
            replies = transport.exchange(b"".join(map(pack, commands)), len(commands))
            _raise_errors(replies)
            return replies[-1][0], replies[-1][1]

        names, amounts = limiter().ask(together)
        return [(tuple(json.loads(name)), amount) for name, amount in zip(names, amounts, strict=True)]

    @property
    def _key(self) -> bytes:
        return limiter().limiter.keys.key("n", self.name)

    def clear(self) -> None:
        """Drop what this process has counted and not flushed: after a fork it is the parent's."""
        self._lock, self._flushing = threading.Lock(), threading.Lock()
        self._sums = {}


def _raise_errors(replies: Iterable[object]) -> None:
    for reply in replies:
        if isinstance(reply, ScriptError):
            raise LimiterUnavailable(str(reply))


class _Flusher:
    """One thread per process, for all of its counters; started by the first count."""

    def __init__(self) -> None:
        self._counters: set[BufferedCounter] = set()
        self._is_started = False
        os.register_at_fork(after_in_child=self._after_fork)

    def register(self, counter: BufferedCounter) -> None:
        if self._is_started and counter in self._counters:
            return
        self._counters.add(counter)
        if not self._is_started:
            self._is_started = True
            stop = threading.Event()
            background.start("counters", lambda: self._flush_in_a_while(stop), stop)
            atexit.register(self.flush)
            atexit.register(stop.set)
            events.before_exit(self.flush)

    def flush(self) -> None:
        for counter in list(self._counters):
            counter.flush()

    def _flush_in_a_while(self, stop: threading.Event) -> None:
        if not stop.wait(FLUSH_EVERY):
            self.flush()

    def _after_fork(self) -> None:
        self._is_started = False
        for counter in self._counters:
            counter.clear()


_flusher = _Flusher()


def flush_all() -> None:
    """Write now what this process has counted."""
    _flusher.flush()
