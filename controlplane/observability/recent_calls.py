"""The gateway's recent calls: who, when, with which account, how it ended; never anything of a body.

    CallEnded -> this process's buffer -> once a second one write: the newest calls of all, and of each project

Two capped streams take each call: one of all calls, and one per project, so that a busy project does not push out the
calls of others. While Redis is unavailable the newest calls stay in the buffer, and what was sent without an answer is sent
again, marked as repeated: of a call that was written twice, readers skip the second. After a restart of a Redis without a
disk the calls are gone.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import threading
from collections import Counter, deque
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import structlog

from queues.connection import client, key
from quotas import events
from quotas.engine.errors import LimiterUnavailable
from quotas.engine.redis.scripts import pack
from quotas.engine.redis.transport import Transport
from quotas.runtime import background
from quotas.shapes import Shape, field
from quotas.times import from_unix

MAX_CALLS = 20_000
"""Calls that are kept of all projects, about."""
KEPT_BY_PROJECT = 1_000
CALLS_TTL = 7 * 86400
"""Seconds for which the calls of a project that makes no more are kept."""
BUFFERED = 5_000
"""Calls that one process keeps until they are written: of more, the newest."""
AT_ONCE = 500
"""Calls of one write: few enough to be answered in time."""
WRITE_INTERVAL = 1.0
TIMEOUT = 1.0
CHUNK = 1_000
_ID = re.compile(r"\d{1,16}-\d{1,10}")
_FIRST = "+"
_REPEATED = "r"
"""The field of an entry that may have been written before."""
log = structlog.get_logger(__name__)


def stream_key(project: str | None) -> str:
    """Of one project's calls; None: of all."""
    return key("calls") if project is None else key(f"calls:{project}")


class CallBody(Shape):
    """A call as it is stored, and as the API shows it."""

    id: str = field("call", help="As in `Sluice-Request-Id`.")
    at: datetime
    pool: str
    project: str
    user: str
    actor: str = field(help="The API key's name.")
    method: str
    path: str = field(help="Without its query.")
    model: str
    account: str
    status: int | None = field(help="Null where the caller went away before an answer.")
    outcome: str = field(
        help="`ok`, an error category, `quota_exceeded`, `no_account`, `rejected`, `unavailable`, `queued`,"
        " `broken` or `cancelled`."
    )
    attempts: int
    waited: float = field(digits=6)
    waited_for: list[str] = field(
        help="What delayed its admission, in order: `policy NAME`, `pool NAME: REASONS`, `earlier calls` that wait for the"
        " same, or `redis`."
    )
    seconds: float = field(digits=6)
    overhead: float = field(digits=6)
    first_byte: float | None = field(digits=6)
    is_stream: bool
    cost: dict[str, int] = field(help="The estimate.")
    actual: dict[str, int] = field(help="What was used; `cached_tokens` are part of the tokens.")
    refusal: dict[str, Any] = field(help="Why it was refused: code, detail, limits or reasons.")
    trace: str = field(help="The trace id of the caller's `traceparent`.")


class Recorder:
    """This process's buffer and the thread that empties it. Safe under threads and forks."""

    def __init__(self) -> None:
        self._transport: Transport | None = None
        self._forget()
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._buffer: deque[events.CallEnded] = deque(maxlen=BUFFERED)
        self._unanswered: set[str] = set()
        """Calls that were sent to Redis without an answer."""
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._transport = None

    def note(self, event: events.CallEnded) -> None:
        """A subscriber: never blocks."""
        self._buffer.append(event)
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    stop = threading.Event()
                    self._thread = background.start("recent-calls", lambda: self._write_in_a_while(stop), stop)
                    atexit.register(self.flush)

    def flush(self) -> None:
        """Write what is in the buffer; what Redis does not answer for stays in it."""
        with self._lock:
            left = len(self._buffer)
            newer = Counter(call.project for call in list(self._buffer)[:left])
            while left > 0:
                calls = [self._buffer.popleft() for _ in range(min(left, AT_ONCE))]
                left -= len(calls)
                try:
                    self._write(calls, newer)
                except LimiterUnavailable as error:
                    log.info("calls.delayed", calls=len(calls) + left, error=str(error))
                    self._keep(calls)
                    return
                self._unanswered.difference_update(call.call for call in calls)

    def _keep(self, calls: list[events.CallEnded]) -> None:
        """Put calls that were not answered for before those that came meanwhile; of too many, drop the oldest."""
        room = BUFFERED - len(self._buffer)
        kept = calls[-room:] if room > 0 else []
        self._buffer.extendleft(reversed(kept))
        self._unanswered.update(call.call for call in kept)

    def _write(self, calls: list[events.CallEnded], newer: Counter[str]) -> None:
        """`newer`: how many calls of each project are still to be written, these included."""
        if self._transport is None:
            self._transport = Transport(client(), timeout=TIMEOUT)
        commands = []
        for call in calls:
            fields = ["d", _encode(CallBody.of(call, at=from_unix(call.at)))]
            if call.call in self._unanswered:
                fields += [_REPEATED, "1"]
            commands.append(pack(("XADD", stream_key(None), "MAXLEN", "~", MAX_CALLS, "*", *fields)))
            newer[call.project] -= 1
            if call.project and newer[call.project] < KEPT_BY_PROJECT:  # else it would be trimmed at once
                name = stream_key(call.project)
                commands.append(pack(("XADD", name, "MAXLEN", "~", KEPT_BY_PROJECT, "*", *fields)))
        commands += [pack(("EXPIRE", stream_key(slug), CALLS_TTL)) for slug in {call.project for call in calls} if slug]
        self._transport.exchange(b"".join(commands), len(commands))

    def _write_in_a_while(self, stop: threading.Event) -> None:
        if not stop.wait(WRITE_INTERVAL):
            self.flush()


_encode = json.JSONEncoder(separators=(",", ":"), default=str).encode


def calls(project: str | None, before: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Calls with their ids in the stream, newest first, before the id `before`; `project` None: of all.

    Raises `redis.RedisError`.
    """
    recorder.flush()
    end = f"({before}" if before else _FIRST
    repeated: set[str] = set()
    while True:
        entries: list[Any] = client().xrevrange(stream_key(project), end, "-", count=CHUNK)  # type: ignore[assignment]
        for place, entry in entries:
            call = json.loads(entry[b"d"])
            if call["id"] in repeated:
                continue
            if _REPEATED.encode() in entry:
                repeated.add(call["id"])
            yield place.decode(), call
        if len(entries) < CHUNK:
            return
        end = f"({entries[-1][0].decode()}"


def is_place(text: str) -> bool:
    """Whether the text can be a call's id in the stream."""
    return _ID.fullmatch(text) is not None


recorder = Recorder()


def connect() -> None:
    events.subscribe(events.CallEnded, recorder.note)
    events.before_exit(recorder.flush)
