"""Server-Sent Events to listeners, from their last position until they disconnect, with heartbeats."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from redis.exceptions import RedisError

from controlplane.api.events import Position, Subscription
from controlplane.http.event_hub import BEGINNING, Event, Hub
from controlplane.http.request import Receive, Send, wait_gone
from controlplane.http.response import Answer
from quotas.rest.problems import ProblemError

MOST = 200
"""Listeners per process."""
HEARTBEAT = 15.0
"""Seconds without an event after which a comment is sent, so that proxies and clients see a live connection."""
RETRY = 2000
"""Milliseconds after which a browser reconnects."""
CHECKED_EVERY = 15.0
"""Seconds after which a listener's key or session and its projects are looked up again."""


@dataclass(slots=True)
class Listener:
    """What a listener may receive, as of the last check."""

    subscription: Subscription


async def _refused(listener: Listener, again: Callable[[], Awaitable[Subscription | None]]) -> None:
    """Returns when the listener's key was revoked, its session ended, or its permission was taken away."""
    while True:
        await asyncio.sleep(CHECKED_EVERY)
        found = await again()
        if found is None:
            return
        listener.subscription = found


class Streams:
    """The listeners of one process."""

    def __init__(self) -> None:
        self._listeners: set[asyncio.Task[None]] = set()
        self.hub: Hub | None = None
        """Reads the stream for all listeners; None without any."""
        self._stopping = False

    def __len__(self) -> int:
        """How many listeners there are."""
        return len(self._listeners)

    async def serve(
        self,
        subscription: Subscription,
        headers: list[tuple[bytes, bytes]],
        receive: Receive,
        send: Send,
        again: Callable[[], Awaitable[Subscription | None]],
    ) -> None:
        """Stream to one listener until it disconnects or the server stops, or until `again`, which checks at intervals what
        the listener may receive now, returns None."""
        if self._stopping or len(self._listeners) >= MOST:
            busy = ProblemError(
                "too-many-streams", "Too many streams", 503, f"This process serves {MOST} streams already.",
                headers={"Retry-After": "5"},
            )  # fmt: skip
            await Answer.of_problem(busy).send(send)
            return
        self._watch_for_stop()
        if self.hub is None:
            self.hub = Hub()
        self.hub.start()
        listener = Listener(subscription)
        streaming = asyncio.ensure_future(self._stream(self.hub, listener, headers, send))
        leaving = asyncio.ensure_future(wait_gone(receive))
        checking = asyncio.ensure_future(_refused(listener, again))
        self._listeners.add(streaming)
        try:
            await asyncio.wait({streaming, leaving, checking}, return_when=asyncio.FIRST_COMPLETED)
            refused = checking.done()
        finally:
            for task in (streaming, leaving, checking):
                task.cancel()
            await asyncio.gather(streaming, leaving, checking, return_exceptions=True)
            self._listeners.discard(streaming)
            if not self._listeners and self.hub is not None:
                hub, self.hub = self.hub, None
                await hub.stop()
        if self._stopping or refused:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _stream(self, hub: Hub, listener: Listener, headers: list[tuple[bytes, bytes]], send: Send) -> None:
        kept = [(name, value) for name, value in headers if name != b"content-length"]
        kept.append((b"x-accel-buffering", b"no"))  # a proxy that buffers the response would never forward it
        await send({"type": "http.response.start", "status": 200, "headers": kept})
        await _write(send, b"retry: %d\n\n" % RETRY)
        position, memory = await self._first_position(hub, listener.subscription, send), hub.memory
        await _write(send, b": listening\n\n")  # the listener receives every event from now on
        while True:
            news = hub.news()
            if memory != hub.memory:
                position, memory = BEGINNING, hub.memory
            events: list[Event] = []
            try:
                events = await hub.after(position)
            except RedisError:
                await asyncio.sleep(1.0)
                await _write(send, b": waiting\n\n")
                continue
            if events:
                position = events[-1].id
                projects = listener.subscription.projects
                seen = [e.frame for e in events if projects is None or e.project in projects]
                if seen:
                    await _write(send, b"".join(seen))
                continue
            if not await _within(news, HEARTBEAT):
                await _write(send, b": \n\n")

    @staticmethod
    async def _first_position(hub: Hub, subscription: Subscription, send: Send) -> Position:
        """The listener's first position: the one that it names, but never beyond the end of the stream."""
        while hub.tail is None:
            if not await _within(hub.news(), HEARTBEAT):
                await _write(send, b": waiting\n\n")
        return hub.tail if subscription.after is None else min(subscription.after, hub.tail)

    def _watch_for_stop(self) -> None:
        """End all streams when the process gets a signal to stop: the server waits for open responses before it reports the stop.

        The handlers work beside the loop's own, which are still called through its wakeup descriptor.
        """
        if self._listeners or threading.current_thread() is not threading.main_thread():
            return
        loop = asyncio.get_running_loop()

        def stop(number: int, frame: object) -> None:
            loop.call_soon_threadsafe(self._stop)

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
            signal.siginterrupt(number, False)

    def _stop(self) -> None:
        self._stopping = True
        for listener in self._listeners:
            listener.cancel()

    async def close(self) -> None:
        self._stop()
        if self.hub is not None:
            await self.hub.stop()


async def _write(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def _within(news: asyncio.Future[None], seconds: float) -> bool:
    """Whether it happens within that time; others may wait for the same."""
    done, _ = await asyncio.wait({news}, timeout=seconds)
    return bool(done)
