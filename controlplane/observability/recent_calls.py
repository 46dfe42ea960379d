"""The gateway's recent calls: who, when, with which account, how it ended; never anything of a body.

    CallEnded -> this process's buffer -> once a second one write: the newest calls of all, and of each project

Two capped streams take each call: one of all calls, and one per project, so that a busy project does not push out the
calls of others. They are for people to look at: where Redis is unavailable calls are dropped, and after a restart of a Redis
without a disk they are gone.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import threading
from collections import deque
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
"""Calls that one process keeps between two writes: of more, the newest."""
WRITE_INTERVAL = 1.0
TIMEOUT = 1.0
CHUNK = 1_000
_ID = re.compile(r"\d{1,16}-\d{1,10}")
_FIRST = "+"
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
        """Write what is in the buffer; what Redis does not take is dropped."""
        with self._lock:
            calls = [self._buffer.popleft() for _ in range(len(self._buffer))]
            if not calls:
                return
            try:
                self._write(calls)
            except LimiterUnavailable as error:
                log.info("calls.dropped", calls=len(calls), error=str(error))

    def _write(self, calls: list[events.CallEnded]) -> None:
        if self._transport is None:
            self._transport = Transport(client(), timeout=TIMEOUT)
        commands = []
        for call in calls:
            data = _encode(CallBody.of(call, at=from_unix(call.at)))
            commands.append(pack(("XADD", stream_key(None), "MAXLEN", "~", MAX_CALLS, "*", "d", data)))
            if call.project:
                name = stream_key(call.project)
                commands.append(pack(("XADD", name, "MAXLEN", "~", KEPT_BY_PROJECT, "*", "d", data)))
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
    while True:
        entries: list[Any] = client().xrevrange(stream_key(project), end, "-", count=CHUNK)  # type: ignore[assignment]
        for place, entry in entries:
            yield place.decode(), json.loads(entry[b"d"])
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
