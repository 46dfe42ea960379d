"""One reader of the event stream per process, and the last events in memory for all who listen here.

A listener has only a position. It reads missing events from memory, or older ones from Redis. So a slow listener delays
no other and fills no queue, and a listener that returns continues at its position.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from dataclasses import dataclass
from typing import Any

import redis.asyncio
import structlog
from django.conf import settings
from redis.exceptions import RedisError

from controlplane.api.events import Position
from controlplane.observability.stream import stream_key
from quotas import events
from quotas.times import from_unix, rfc3339

REMEMBERED = 2_000
PAGE = 500
BLOCK = 5.0
"""Seconds that a read waits for events."""
LONGEST_WAIT = 2.0
BEGINNING: Position = (0, 0)
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Event:
    """One event, as it is sent."""

    id: Position
    project: str
    frame: bytes


class Hub:
    """Reads while it is started. Listeners call `after` and wait for `news`."""

    def __init__(self) -> None:
        self._redis: redis.asyncio.Redis = redis.asyncio.Redis.from_url(
            settings.REDIS_URL, socket_timeout=2 * BLOCK, socket_connect_timeout=2, health_check_interval=0
        )
        self._recent: deque[Event] = deque()
        self._known_from: Position = BEGINNING
        """Whatever came later than this is in `_recent`."""
        self._task: asyncio.Task[None] | None = None
        self._news: asyncio.Future[None] | None = None
        self.tail: Position | None = None
        """The newest event's id; None until it is known."""
        self.memory = 0
        """Another number: Redis lost the stream, and positions begin anew."""

    @property
    def is_reading(self) -> bool:
        return self._task is not None and not self._task.done()

    def start(self) -> None:
        if self._task is None:
            self._task = asyncio.ensure_future(self._read())

    async def stop(self) -> None:
        """Drop all subscriptions and close the connection."""
        task, self._task = self._task, None
        while task is not None and not task.done():
            # More than once: where a cancel meets the client's own timeout, one of the two gets lost.
            task.cancel()
            await asyncio.wait({task}, timeout=0.2)
        self.tail = None
        self._recent.clear()
        await self._redis.aclose()

    def news(self) -> asyncio.Future[None]:
        """Done when there is something new."""
        if self._news is None:
            self._news = asyncio.get_running_loop().create_future()
        return self._news

    async def after(self, position: Position) -> list[Event]:
        """Events later than `position`, oldest first, at most a page. Raises RedisError where they can't be read."""
        if position >= self._known_from:
            found: list[Event] = []
            for event in reversed(self._recent):
                if event.id <= position:
                    break
                found.append(event)
            return found[-1 : -PAGE - 1 : -1]
        rows: Any = await self._redis.xrange(stream_key(), f"({position[0]}-{position[1]}", "+", count=PAGE)
        return [event_of(*row) for row in rows]

    async def _read(self) -> None:
        wait = 0.05
        me = asyncio.current_task()
        while self._task is me:
            try:
                if self.tail is None:
                    self._begin(await self._last() or BEGINNING)
                assert self.tail is not None
                position = f"{self.tail[0]}-{self.tail[1]}"
                # `None` or [[name, rows]], with RESP3 {name: [rows]}.
                found: Any = await self._redis.xread({stream_key(): position}, count=PAGE, block=int(BLOCK * 1000))
                wait = 0.05
                rows = (
                    next(iter(found.values()))[0] if isinstance(found, dict) and found else found[0][1] if found else []
                )
                if rows:
                    self._take([event_of(*row) for row in rows])
                else:
                    await self._look_back()
            except RedisError as error:
                events.emit(events.ServiceUnavailable("live events", "reading the stream", type(error).__name__))
                await self._redis.connection_pool.disconnect()  # after a failover the address may be another server's
                await asyncio.sleep(wait)
                wait = min(wait * 2, LONGEST_WAIT)
            except Exception:
                # The listeners of this process depend on this one task: it continues from the end of the stream.
                log.exception("events.fault")
                self.tail = None
                await asyncio.sleep(wait)
                wait = min(wait * 2, LONGEST_WAIT)

    async def _last(self) -> Position | None:
        rows: Any = await self._redis.xrevrange(stream_key(), count=1)
        return event_of(*rows[0]).id if rows else None

    async def _look_back(self) -> None:
        """After a while without events: whether the stream began anew with lower ids (a clock was set back)."""
        last = await self._last()
        if last is not None and self.tail is not None and last < self.tail:
            self.memory += 1
            self._begin(BEGINNING)

    def _begin(self, tail: Position) -> None:
        self.tail = self._known_from = tail
        self._recent.clear()
        self._wake()

    def _take(self, events: list[Event]) -> None:
        self._recent.extend(events)
        while len(self._recent) > REMEMBERED:
            self._known_from = self._recent.popleft().id
        self.tail = events[-1].id
        self._wake()

    def _wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)
        self._news = None


def event_of(raw_id: bytes, fields: Any) -> Event:
    """An entry of the stream in the form in which it is sent (text/event-stream); one that can't be read as a comment."""
    milliseconds, _, number = raw_id.partition(b"-")
    position = (int(milliseconds), int(number))
    try:
        name, project = fields[b"n"].decode(), fields[b"p"].decode()
        data = json.loads(fields[b"d"])
        at = rfc3339(from_unix(position[0] / 1000))
    except (KeyError, ValueError, OverflowError, OSError) as error:
        log.warning("events.unreadable", id=raw_id.decode(), error=type(error).__name__)
        return Event(position, "", b": unreadable\n\n")
    document = {"event": name, "project": project or None, "at": at, "data": data}
    text = json.dumps(document, separators=(",", ":"))
    frame = f"id: {raw_id.decode()}\nevent: {name}\ndata: {text}\n\n".encode()
    return Event(position, project, frame)
