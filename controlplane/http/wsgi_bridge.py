"""Django's WSGI application behind ASGI: the body is read, a thread calls Django, the response is sent in one piece.

Responses above 256 KB are sent in pieces; the thread waits for each, as a WSGI server does.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterable
from io import BytesIO
from typing import IO, Any
from urllib.parse import unquote_to_bytes

import structlog
from django.conf import settings

from controlplane.api.events import STREAMS
from controlplane.http.request import Disconnected, Receive, Scope, Send, spool_body
from controlplane.http.response import Answer
from controlplane.http.threads import Threads
from quotas.rest.problems import ProblemError

log = structlog.get_logger(__name__)

PIECE = 256 * 1024
Streams = Callable[[Any, list[tuple[bytes, bytes]], Receive, Send, Callable[[], Awaitable[Any]]], Any]


class Bridge:
    """`application` is a WSGI callable; `stream` handles responses that have an attribute `subscription`."""

    def __init__(self, application: Callable[..., Iterable[bytes]], threads: Threads, stream: Streams) -> None:
        self._application = application
        self._threads = threads
        self._stream = stream

    async def __call__(
        self, scope: Scope, receive: Receive, send: Send, body: tuple[IO[bytes], int] | None = None
    ) -> None:
        limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
        if body is None:
            try:
                body = await spool_body(receive, limit)
            except Disconnected:
                return
            except OSError as error:  # a large body goes to a temporary file
                log.warning("http.body_not_stored", error=error.strerror)
                full = ProblemError(
                    "storage-unavailable", "Storage unavailable", 503, "There is no room for the body; try again.",
                    headers={"Retry-After": "2"},
                )  # fmt: skip
                await Answer.of_problem(full).send(send)
                return
        file, size = body
        with file:
            if size > limit and not scope["path"].startswith("/api/"):
                # API views answer that after authentication; other views would read half a body.
                too_large = ProblemError("body-too-large", "Body too large", 413, f"A body may have {limit} bytes.")
                await Answer.of_problem(too_large).send(send)
                return
            loop = asyncio.get_running_loop()
            call = _Call(self._application, environ_of(scope, file, size), loop, send)
            pool = self._threads.patient if _may_wait(scope) else self._threads.django
            subscription = await loop.run_in_executor(pool, call.run)
        if subscription is not None:

            async def again() -> Any:
                """The subscription of the same request now; None where it is refused."""
                with BytesIO() as nothing:
                    repeated = _Call(self._application, environ_of(scope, nothing, 0), loop, send)
                    found = await loop.run_in_executor(self._threads.django, repeated.run)
                return found if found is not None or repeated.status < 500 else subscription

            await self._stream(subscription, call.headers, receive, send, again)
            return
        await call.finish()


def _may_wait(scope: Scope) -> bool:
    """Whether the request waits for capacity and is not on the fast path: it must not delay pages."""
    path: str = scope["path"]
    return scope["method"] == "POST" and path.endswith(("/limits/check", "/acquire"))


class _Call:
    """One request to the WSGI application."""

    def __init__(self, application: Any, environ: dict[str, Any], loop: asyncio.AbstractEventLoop, send: Send) -> None:
        self._application, self._environ, self._loop, self._send = application, environ, loop, send
        self._head = environ["REQUEST_METHOD"] == "HEAD"
        self._started = False
        self.status = 500
        self._rest = b""
        self.headers: list[tuple[bytes, bytes]] = []

    def run(self) -> Any:
        """Runs in a thread. Returns the response's subscription, if it is a live stream."""
        answer = self._application(self._environ, self._start)
        try:
            subscription = getattr(answer, "subscription", None)
            if subscription is not None:
                return subscription
            parts: list[bytes] = []
            size = 0
            for part in answer:
                if self._head:
                    break
                parts.append(part)
                size += len(part)
                if size >= PIECE:
                    self._send_piece(b"".join(parts))
                    parts, size = [], 0
            self._rest = b"".join(parts)
            return None
        finally:
            close = getattr(answer, "close", None)
            if close is not None:
                close()

    def _start(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
        self.status = int(status[:3])
        self.headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        return lambda data: None

    def _send_piece(self, body: bytes) -> None:
        asyncio.run_coroutine_threadsafe(self._piece(body, True), self._loop).result()

    async def _piece(self, body: bytes, more: bool) -> None:
        if not self._started:
            self._started = True
            await self._send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        await self._send({"type": "http.response.body", "body": body, "more_body": more})

    async def finish(self) -> None:
        await self._piece(self._rest, False)


def environ_of(scope: Scope, body: IO[bytes], size: int) -> dict[str, Any]:
    """The WSGI environment (PEP 3333) of an ASGI scope; the body's length is known, however it was sent."""
    raw = scope.get("raw_path")
    path = unquote_to_bytes(raw.split(b"?", 1)[0]) if raw else scope["path"].encode("utf-8", "surrogateescape")
    server = scope.get("server") or ("localhost", 0)
    environ: dict[str, Any] = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": path.decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_NAME": server[0],
        "SERVER_PORT": str(server[1]),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "REMOTE_ADDR": (scope.get("client") or ("",))[0],
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope.get("scheme", "http"),
        "wsgi.input": body,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        STREAMS: True,
    }
    declared = ""
    for name, value in scope["headers"]:
        text = value.decode("latin-1")
        key = name.decode("latin-1").replace("-", "_").upper()
        if b"_" in name or key == "TRANSFER_ENCODING":
            continue  # an underscore could pass for a hyphen, and with it one field for another
        if key == "CONTENT_TYPE":
            environ[key] = text
        elif key == "CONTENT_LENGTH":
            declared = text
        else:
            key = f"HTTP_{key}"
            glue = "; " if key == "HTTP_COOKIE" else ","
            environ[key] = f"{environ[key]}{glue}{text}" if key in environ else text
    if size or declared:
        environ["CONTENT_LENGTH"] = str(size)
    return environ
