"""Counts that all processes add to: noted in memory, added up in Redis once a second, taken from there by the leader.

    note() -> this process's memory -> every second one round trip of HINCRBY -> take(), by the one process that leads

A check costs no further round trip, and a denied one writes nothing: what it adds to is flushed by a thread.
"""

from __future__ import annotations

import atexit
import json
import os
import threading
from collections import Counter
from collections.abc import Iterable, Mapping

import structlog

from quotas import events
from quotas.engine.errors import LimiterUnavailable
from quotas.engine.redis.transport import ScriptError, Transport, pack
from quotas.runtime import background
from quotas.runtime.connection import limiter

EVERY = 1.0
"""Seconds between two flushes."""
LIFE = 3600
"""Seconds after which counts that nobody takes are forgotten."""
BATCH = 2_000
log = structlog.get_logger(__name__)
Field = tuple[str, ...]


class Tally:
    """Counts by field. `most` fields are kept apart between two flushes; the others go to what `rest` makes of them.

    Safe under threads and forks. Where Redis is away the counts are kept and go with the next flush.
    """

    def __init__(self, name: str, *, most: int = 10_000) -> None:
        self.name = name
        self._most = most
        self._lock = threading.Lock()
        self._flushing = threading.Lock()
        self._sums: Counter[Field] = Counter()

    def note(self, fields: Iterable[Field], amount: int = 1) -> None:
        """Add `amount` to each field. Never blocks on Redis."""
        with self._lock:
            _flusher.attend(self)
            for field in fields:
                if len(self._sums) >= self._most and field not in self._sums:
                    field = self.rest(field)
                self._sums[field] += amount

    @staticmethod
    def rest(field: Field) -> Field:
        """Where the count of one field too many goes: to the same field without its last part."""
        return (*field[:-1], "")

    def flush(self) -> None:
        """Add to Redis what was noted."""
        with self._flushing:
            with self._lock:
                sums, self._sums = self._sums, Counter()
            if not sums:
                return
            try:
                limiter().ask(lambda transport: self._write(transport, sums))
            except LimiterUnavailable as error:
                log.info("tally.kept", tally=self.name, error=str(error))
                with self._lock:
                    self._sums.update(sums)

    def _write(self, transport: Transport, sums: Mapping[Field, int]) -> None:
        items = list(sums.items())
        for start in range(0, len(items), BATCH):
            batch = items[start : start + BATCH]
            commands = [pack(("HINCRBY", self._key, json.dumps(field), amount)) for field, amount in batch]
            commands.append(pack(("EXPIRE", self._key, LIFE)))
            _checked(transport.exchange(b"".join(commands), len(commands)))

    def take(self) -> dict[Field, int]:
        """All that has been added up so far, and begin anew. For one process at a time; what it does not use is lost.

        Raises LimiterUnavailable.
        """
        key = self._key
        commands = (("MULTI",), ("HKEYS", key), ("HVALS", key), ("DEL", key), ("EXEC",))

        def together(transport: Transport) -> tuple[list[bytes], list[bytes]]:
            replies = transport.exchange(b"".join(map(pack, commands)), len(commands))
            _checked(replies)
            return replies[-1][0], replies[-1][1]

        names, counts = limiter().ask(together)
        return {tuple(json.loads(name)): int(count) for name, count in zip(names, counts, strict=True)}

    @property
    def _key(self) -> bytes:
        return limiter().limiter.keys.key("n", self.name)

    def forget(self) -> None:
        """What was noted here is nothing to keep: after a fork it is the parent's."""
        self._lock, self._flushing = threading.Lock(), threading.Lock()
        self._sums = Counter()


def _checked(replies: Iterable[object]) -> None:
    for reply in replies:
        if isinstance(reply, ScriptError):
            raise LimiterUnavailable(str(reply))


class _Flusher:
    """One thread per process, for all of its tallies; started by the first count."""

    def __init__(self) -> None:
        self._tallies: set[Tally] = set()
        self._pid = 0
        os.register_at_fork(after_in_child=self._forget)

    def attend(self, tally: Tally) -> None:
        self._tallies.add(tally)
        if self._pid != os.getpid():
            self._pid = os.getpid()
            stop = threading.Event()
            background.start("tallies", lambda: self._flush_in_a_while(stop), stop)
            atexit.register(self.flush)
            atexit.register(stop.set)
            events.before_exit(self.flush)

    def flush(self) -> None:
        for tally in list(self._tallies):
            tally.flush()

    def _flush_in_a_while(self, stop: threading.Event) -> None:
        if not stop.wait(EVERY):
            self.flush()

    def _forget(self) -> None:
        for tally in self._tallies:
            tally.forget()


_flusher = _Flusher()


def flush_all() -> None:
    """Hand on now what this process has noted."""
    _flusher.flush()
