"""Live events: what happens in any process goes to one capped stream in Redis, from which `GET /api/v1/events` reads.

    emit() -> put() into this process's buffer -> a thread writes the buffer, 20 ms after the first -> XADD ...

The emitter is never delayed and never fails. While Redis is unavailable, events wait in the buffer; if the buffer is full
they are dropped and counted. Denials and submissions, of which there may be thousands a second, are reported once per policy
and key, or queue, and second, with their count.
"""

from __future__ import annotations

import atexit
import json
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import structlog
from django.db import connection as sql
from django.db import transaction

from queues.connection import client, key
from quotas import events
from quotas.engine.categories import TRANSIENT, Category
from quotas.engine.errors import LimiterUnavailable
from quotas.engine.redis.scripts import pack
from quotas.engine.redis.transport import ScriptError, Transport
from quotas.runtime import background

MAX_EVENTS = 20_000
"""About how many events the stream keeps for clients that return."""
BUFFERED = 10_000
"""Events in the buffer of one process."""
BATCH = 500
WRITE_DELAY = 0.02
"""Seconds between the first event in the buffer and the write."""
DENIAL_WINDOW = 1.0
"""Seconds for which denials of the same policy and key are counted together."""
MOST_DENIALS = 1_000
"""Keys that are counted at a time; denials of further keys are reported without their key."""
TIMEOUT = 1.0
LONGEST_WAIT = 2.0
FAILED_CALLS = frozenset({*TRANSIENT, Category.AUTH, "broken", "no_account"})
"""Outcomes of calls through the gateway that are events; what a caller's own limit refuses is `limit.denied`."""

log = structlog.get_logger(__name__)


def stream_key() -> str:
    return key("events")


def dropped_key() -> str:
    return key("events:dropped")


@dataclass(frozen=True, slots=True)
class Entry:
    """One event to publish: its name, the slug of the project that may see it (empty: the platform only), its data."""

    name: str
    project: str
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Streamed:
    """How events of a type are streamed. `members`: its fields, or (name in the stream, field)."""

    name: str | Callable[[Any], str]
    members: tuple[str | tuple[str, str], ...]
    more: Mapping[str, Any] = field(default_factory=dict)
    """Members with a constant value."""
    wanted: Callable[[Any], bool] = lambda event: True

    def entry(self, event: events.Event) -> Entry | None:
        if not self.wanted(event):
            return None
        pairs = ((one, one) if isinstance(one, str) else one for one in self.members)
        data = {name: getattr(event, source) for name, source in pairs}
        name = self.name if isinstance(self.name, str) else self.name(event)
        return Entry(name, event.project, {**data, **self.more})


def entry_of(event: events.Event) -> Entry | None:
    """The entry of the stream for an event; None for events that are not streamed."""
    streamed = STREAMED.get(type(event))
    return None if streamed is None else streamed.entry(event)


def _account_name(before: str, after: str) -> str:
    if after in ("open", "half_open"):
        return "breaker.opened" if after == "open" else "breaker.half_open"
    if after == "available" and before in ("open", "half_open"):
        return "breaker.closed"
    return f"account.{after}"


_JOB = ("job", "queue", "type")
_ALERT = ("alert", "kind", "subject", "severity", "summary", "count")
STREAMED: dict[type[events.Event], Streamed] = {
    events.JobsSubmitted: Streamed("jobs.submitted", ("queue", "count")),
    events.JobChanged: Streamed(
        lambda event: f"job.{event.status}",
        (*_JOB, "status", "reason"),
        wanted=lambda event: event.status != "dead",  # reported with its dead letter
    ),
    events.JobDied: Streamed(
        "job.dead",
        (*_JOB, ("dead_letter", "letter"), "category", "severity", ("ignored", "is_ignored")),
        {"status": "dead"},
    ),
    events.LimitDenied: Streamed("limit.denied", ("policy", "scope", "key", "retry_after"), {"count": 1}),
    events.CallEnded: Streamed(
        "call.failed", ("pool", "outcome"), {"count": 1}, wanted=lambda event: event.outcome in FAILED_CALLS
    ),
    events.LimitBypassed: Streamed("limit.bypassed", ("policy", "actor")),
    events.LimiterDegraded: Streamed("limit.degraded", ("error",)),
    events.LimiterRecovered: Streamed("limit.recovered", ("seconds",)),
    events.SettlementDelayed: Streamed("limit.settlement_delayed", ("what", "error")),
    events.ThresholdCrossed: Streamed("limit.threshold", ("policy", "key", "share", "used", "limit")),
    events.LimitAdapted: Streamed("limit.adapted", ("policy", "before", "after", "why")),
    events.AccountChanged: Streamed(
        lambda event: _account_name(event.before, event.after),
        ("pool", "account", "before", "after", "why", ("retry_after", "until")),
    ),
    events.PoolLimited: Streamed("account.pool_limited", ("pool", "account", "why", ("retry_after", "until"))),
    events.ConcurrencyChanged: Streamed("account.concurrency", ("pool", "account", "before", "after", "why")),
    events.QueueChanged: Streamed(
        lambda event: f"queue.{'resumed' if event.state == 'running' else event.state}", ("queue", "state", "why")
    ),
    events.AlertRaised: Streamed("alert.raised", _ALERT),
    events.AlertResolved: Streamed("alert.resolved", _ALERT),
}
"""The events of the stream, by their type."""
NAMES = (
    *(f"account.{what}" for what in ("available", "cooling_down", "disabled", "paused", "pool_limited", "concurrency")),
    *(f"alert.{what}" for what in ("raised", "resolved")),
    *(f"breaker.{what}" for what in ("opened", "half_open", "closed")),
    "call.failed",
    *(f"job.{what}" for what in ("executing", "completed", "retrying", "rate_limited", "pending", "cancelled", "dead")),
    "jobs.submitted",
    *(f"limit.{what}" for what in ("adapted", "bypassed", "denied", "settlement_delayed", "threshold")),
    *(f"limit.{what}" for what in ("degraded", "recovered")),
    *(f"queue.{what}" for what in ("paused", "draining", "resumed")),
)
"""All names in the stream: a browser listens for each by its name."""


class Publisher:
    """This process's buffer and the thread that empties it. Safe under threads and forks."""

    def __init__(self, *, thread: bool = True) -> None:
        """Without a `thread` the owner calls `flush`."""
        self.dropped = 0
        self._starts_thread = thread
        self._begin()
        os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        """Start empty, also after a fork: the parent sends its own events."""
        self._buffer: deque[Entry] = deque()
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._denials: dict[tuple[str, str, str, str], Entry] = {}
        self._transport: Transport | None = None
        self._collected = time.monotonic()

    def publish(self, event: events.Event) -> None:
        """A subscriber. An event that is emitted in a transaction is sent after the commit."""
        if isinstance(event, events.LimitDenied):
            self._denied(event)
            return
        entry = entry_of(event)
        if entry is None:
            return
        if isinstance(event, events.CallEnded):
            self._collect((event.pool, "", event.outcome, event.project), entry)
            return
        if isinstance(event, events.JobsSubmitted):
            self._collect((entry.name, event.queue, "", event.project), entry)
            return
        if sql.in_atomic_block:
            transaction.on_commit(lambda: self.put(entry))
        else:
            self.put(entry)

    def put(self, entry: Entry) -> None:
        """Never blocks for long, never fails."""
        if len(self._buffer) >= BUFFERED:
            self.dropped += 1
            return
        self._buffer.append(entry)
        if not self._wake.is_set():
            self._start()

    def _denied(self, event: events.LimitDenied) -> None:
        """Send the first denial at once, and those of the next second together."""
        entry = entry_of(event)
        assert entry is not None
        place = (event.policy, event.scope, event.key, event.project)
        with self._lock:
            if place not in self._denials and len(self._denials) >= MOST_DENIALS:
                place = (event.policy, event.scope, "", event.project)
                entry.data["key"] = ""
        self._collect(place, entry)

    def _collect(self, place: tuple[str, str, str, str], entry: Entry) -> None:
        """Publish the first entry of a counter at once, and those of the next second together, with their count."""
        with self._lock:
            waiting = self._denials.get(place)
            if waiting is not None:
                waiting.data.update(entry.data, count=waiting.data["count"] + entry.data["count"])
                return
            self._denials[place] = Entry(entry.name, entry.project, {**entry.data, "count": 0})
        self.put(entry)

    def reconnect(self) -> None:
        """Use the process's present client of Redis from the next flush on."""
        with self._writing:
            self._transport = None

    def _start(self) -> None:
        with self._lock:
            if self._thread is None and self._starts_thread:
                self._thread = background.start("event-stream", self._write_what_comes, threading.Event())
                atexit.register(self.flush)
        self._wake.set()

    def _write_what_comes(self) -> None:
        self._wake.wait(DENIAL_WINDOW if self._denials else None)
        time.sleep(WRITE_DELAY)
        self._wake.clear()
        if time.monotonic() - self._collected >= DENIAL_WINDOW:
            self._collected = time.monotonic()
            self._collect_denials()
        wait = 0.1
        while self._buffer and not self.flush():
            time.sleep(wait)
            wait = min(wait * 2, LONGEST_WAIT)

    def _collect_denials(self) -> None:
        with self._lock:
            collected, self._denials = self._denials, {}
        for entry in collected.values():
            if entry.data["count"]:
                self.put(entry)

    def flush(self) -> bool:
        """Write what is in the buffer. False where Redis does not take it; it is kept then."""
        with self._writing:
            while self._buffer:
                batch = list(islice(self._buffer, BATCH))
                try:
                    done = self._write(batch)
                except LimiterUnavailable as error:
                    events.emit(events.ServiceUnavailable("live events", "writing the stream", str(error)))
                    return False
                for _ in range(done):
                    self._buffer.popleft()
                if done < len(batch):
                    return False
        return True

    def _write(self, batch: list[Entry]) -> int:
        """How many of `batch` are in the stream now, from its beginning on."""
        if self._transport is None:
            self._transport = Transport(client(), timeout=TIMEOUT)
        name = stream_key()
        head = ("XADD", name, "MAXLEN", "~", MAX_EVENTS, "*")
        commands = [pack((*head, "n", one.name, "p", one.project, "d", _encode(one.data))) for one in batch]
        dropped = self.dropped
        if dropped:
            commands.append(pack(("INCRBY", dropped_key(), dropped)))
        replies = self._transport.exchange(b"".join(commands), len(commands))
        failed = next((n for n, reply in enumerate(replies[: len(batch)]) if type(reply) is ScriptError), None)
        if failed is not None:
            events.emit(events.ServiceUnavailable("live events", "writing the stream", str(replies[failed])))
            return failed
        if dropped:
            self.dropped -= dropped
            events.emit(events.StreamEventsDropped(dropped))
        return len(batch)


_encode = json.JSONEncoder(separators=(",", ":"), default=str).encode
"""Write any value: an event that can't be written would block the buffer for ever."""


publisher = Publisher()


def connect() -> None:
    for kind in STREAMED:
        events.subscribe(kind, publisher.publish)
    events.before_exit(publisher.flush)
