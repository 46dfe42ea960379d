"""Live events: what happens in any process goes to one capped stream in Redis, from which `GET /api/v1/events` reads.

    emit() -> put() into this process's buffer -> a thread writes what is there, 20 ms after the first -> XADD ...

The emitter is never delayed and never fails. While Redis is unavailable, events wait in the buffer; if the buffer is full
they are dropped and counted. Denials, of which there may be thousands a second, are reported once per policy and key and
second, with their count.
"""

from __future__ import annotations

import atexit
import json
import os
import threading
import time
from collections import deque
from dataclasses import dataclass
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

KEPT = 20_000
"""About how many events the stream keeps for clients that return."""
BUFFERED = 10_000
"""Events in the buffer of one process."""
BATCH = 500
PACE = 0.02
"""Seconds between the first event in the buffer and the write."""
TOGETHER = 1.0
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
    """One event on its way: its name, the slug of the project that may see it (empty: the platform only), its data."""

    name: str
    project: str
    data: dict[str, Any]


def entry_of(event: events.Event) -> Entry | None:
    """The entry of the stream for an event; None for events that are not streamed."""
    data: dict[str, Any]
    match event:
        case events.JobChanged():
            if event.status == "dead":
                return None  # reported with its dead letter
            data = {
                "job": event.job, "queue": event.queue, "type": event.type, "status": event.status,
                "reason": event.reason,
            }  # fmt: skip
            return Entry(f"job.{event.status}", event.project, data)
        case events.LimitDenied():
            data = {"policy": event.policy, "scope": event.scope, "key": event.key, "retry_after": event.retry_after}
            return Entry("limit.denied", event.project, {**data, "count": 1})
        case events.CallEnded():
            if event.outcome not in FAILED_CALLS:
                return None
            return Entry("call.failed", event.project, {"pool": event.pool, "outcome": event.outcome, "count": 1})
        case events.LimitBypassed():
            return Entry("limit.bypassed", event.project, {"policy": event.policy, "actor": event.actor})
        case events.LimiterDegraded():
            return Entry("limit.degraded", "", {"error": event.error})
        case events.LimiterRecovered():
            return Entry("limit.recovered", "", {"seconds": event.seconds})
        case events.SettlementDelayed():
            return Entry("limit.settlement_delayed", "", {"what": event.what, "error": event.error})
        case events.ThresholdCrossed():
            used = {"share": event.share, "used": event.used, "limit": event.limit}
            return Entry("limit.threshold", event.project, {"policy": event.policy, "key": event.key, **used})
        case events.LimitAdapted():
            data = {"policy": event.policy, "before": event.before, "after": event.after, "why": event.why}
            return Entry("limit.adapted", event.project, data)
        case events.AccountChanged():
            data = {
                "pool": event.pool, "account": event.account, "before": event.before, "after": event.after,
                "why": event.why, "retry_after": event.until,
            }  # fmt: skip
            return Entry(_account_name(event.before, event.after), event.project, data)
        case events.JobDied():
            data = {
                "job": event.job, "queue": event.queue, "type": event.type, "status": "dead",
                "dead_letter": event.letter, "category": event.category, "severity": event.severity,
            }  # fmt: skip
            return Entry("job.dead", event.project, data)
        case events.PoolLimited():
            data = {"pool": event.pool, "account": event.account, "why": event.why, "retry_after": event.until}
            return Entry("account.pool_limited", event.project, data)
        case events.ConcurrencyChanged():
            moved = {"before": event.before, "after": event.after, "why": event.why}
            return Entry("account.concurrency", event.project, {"pool": event.pool, "account": event.account, **moved})
        case events.QueueChanged():
            name = "resumed" if event.state == "running" else event.state
            return Entry(f"queue.{name}", event.project, {"queue": event.queue, "state": event.state, "why": event.why})
        case events.AlertRaised() | events.AlertResolved():
            data = {
                "alert": event.alert, "kind": event.kind, "subject": event.subject, "severity": event.severity,
                "summary": event.summary, "count": event.count,
            }  # fmt: skip
            name = "alert.raised" if isinstance(event, events.AlertRaised) else "alert.resolved"
            return Entry(name, event.project, data)
    return None


def _account_name(before: str, after: str) -> str:
    if after in ("open", "half_open"):
        return "breaker.opened" if after == "open" else "breaker.half_open"
    if after == "available" and before in ("open", "half_open"):
        return "breaker.closed"
    return f"account.{after}"


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
        """Publish the first entry of a place at once, and those of the next second together, with their count."""
        with self._lock:
            waiting = self._denials.get(place)
            if waiting is not None:
                waiting.data.update(entry.data, count=waiting.data["count"] + 1)
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
        self._wake.wait(TOGETHER if self._denials else None)
        time.sleep(PACE)
        self._wake.clear()
        if time.monotonic() - self._collected >= TOGETHER:
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
        commands = [
            pack(
                ("XADD", name, "MAXLEN", "~", KEPT, "*", "n", entry.name, "p", entry.project, "d", _encode(entry.data))
            )
            for entry in batch
        ]
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
STREAMED = (
    events.LimitDenied, events.CallEnded, events.LimitBypassed, events.LimiterDegraded, events.LimiterRecovered,
    events.SettlementDelayed, events.ThresholdCrossed, events.LimitAdapted, events.AccountChanged, events.PoolLimited, events.ConcurrencyChanged, events.JobChanged, events.JobDied, events.QueueChanged,
    events.AlertRaised, events.AlertResolved,
)  # fmt: skip


def connect() -> None:
    for kind in STREAMED:
        events.subscribe(kind, publisher.publish)
    events.before_exit(publisher.flush)
