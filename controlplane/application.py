"""The ASGI application of the one port: the fast path, Django for all other requests, live streams."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from controlplane.gateway.gateway import Gateway
from controlplane.gateway.target import PREFIX
from controlplane.http.fast_path import FastPath
from controlplane.http.request import Receive, Scope, Send
from controlplane.http.sse import Streams
from controlplane.http.threads import Threads
from controlplane.http.tracing import traced
from controlplane.http.wsgi_bridge import Bridge
from quotas import tracing

TRACED = ("/api/", PREFIX, "/admin/")
"""Paths whose requests are traced: probes and scrapes would be most of the traces."""


class Application:
    """The ASGI application. `django` is the WSGI application behind it."""

    def __init__(self, django: Callable[..., Any]) -> None:
        self.threads = Threads()
        self.fast_path = FastPath(self.threads)
        self.gateway = Gateway(self.threads, self.fast_path.cache, self.fast_path.checks)
        self.streams = Streams()
        self.bridge = Bridge(django, self.threads, self.streams.serve)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and tracing.is_on() and scope["path"].startswith(TRACED):
            await traced(self._answer, scope, receive, send)
        else:
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "http" and scope["path"].startswith(PREFIX):
            await self.gateway(scope, receive, send)
        elif kind == "http":
            if not await self.fast_path.handle(scope, receive, send):
                await self.bridge(scope, receive, send)
        elif kind == "lifespan":
            await self._live(receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            else:
                await self.close()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def close(self) -> None:
        """End streams and connections. Running threads end by themselves."""
        await self.streams.close()
        await self.gateway.close()
        self.fast_path.close()
        self.threads.close()
