"""The ASGI application in this process, called as a server would call it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from django.core.handlers.wsgi import WSGIHandler

from controlplane.application import Application

T = TypeVar("T")
Headers = list[tuple[str, str]]


@dataclass
class Answered:
    """An answer as it left; `headers` by name in lower case, repetitions joined."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Door:
    """The application on an event loop of its own, in a thread."""

    def __init__(self, django: Callable[..., Any] | None = None) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self.application = Application(django or WSGIHandler())
        self.lean_only = False
        self.django_only = False

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def close(self) -> None:
        self.run(self.application.close())
        self.application.threads.join()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    def request(
        self, method: str, path: str, body: bytes | Iterable[bytes] = b"", headers: Headers | None = None,
        through: str = "door",
    ) -> Answered:  # fmt: skip
        """`through`: `door` as it comes, `lean` which must take it, `bridge` to Django in any case."""
        answered = self.run(self._request(method, path, body, headers or [], through))
        assert answered is not None
        return answered

    async def _request(
        self, method: str, path: str, body: bytes | Iterable[bytes], headers: Headers, through: str,
        gone: asyncio.Event | None = None,
    ) -> Answered | None:  # fmt: skip
        """`gone`: set when the client goes away; None where nothing was answered."""
        leaves = gone or asyncio.Event()
        pieces = [body] if isinstance(body, bytes) else list(body)
        waiting = [
            {"type": "http.request", "body": piece, "more_body": n + 1 < len(pieces)} for n, piece in enumerate(pieces)
        ]
        sent: list[Any] = []

        async def receive() -> Any:
            if waiting:
                return waiting.pop(0)
            await leaves.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        bare, _, query = path.partition("?")
        names = {name.lower() for name, _ in headers}
        known = [] if "host" in names else [("host", "localhost")]
        if pieces != [b""] and not names & {"content-length", "transfer-encoding"}:
            known.append(("content-length", str(sum(map(len, pieces)))))
        scope = {
            "type": "http", "http_version": "1.1", "method": method, "path": bare, "raw_path": bare.encode(),
            "query_string": query.encode(), "scheme": "http", "server": ("127.0.0.1", "80"), "root_path": "",
            "client": ("127.0.0.1", "5000"),
            "headers": [(n.lower().encode("latin-1"), v.encode("latin-1")) for n, v in [*known, *headers]],
        }  # fmt: skip
        app = self.application
        if through == "lean":
            assert await app.fast_path.handle(scope, receive, send), "the lean route did not take it"
        elif through == "bridge":
            await app.bridge(scope, receive, send)
        else:
            await app(scope, receive, send)
        if not sent:
            return None
        start, *rest = sent
        found: dict[str, str] = {}
        for name, value in start["headers"]:
            key = name.decode()
            found[key] = f"{found[key]}, {value.decode()}" if key in found else value.decode()
        return Answered(start["status"], found, b"".join(message["body"] for message in rest))
