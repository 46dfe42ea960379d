"""The part of HTTP/1.1 that a provider needs: keep-alive, pipelining, bodies by length or in chunks, answers that break off."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus

MAX_HEAD = 64 * 1024
MAX_BODY = 16 * 1024 * 1024
_REASONS = {status.value: status.phrase for status in HTTPStatus} | {529: "Site is overloaded"}


@dataclass(slots=True)
class Request:
    """One request; header names are lower case, the target is kept as sent."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes


@dataclass(slots=True)
class Response:
    """One answer, `delay` seconds from now; with `drop` the connection is reset in the middle of the body."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    delay: float = 0.0
    drop: bool = False
    pieces: Sequence[bytes] = ()
    """The body in chunks, one every `pace` seconds, instead of `body`; with `drop` the connection is reset after them."""
    pace: float = 0.0
    done: Callable[[bool], None] | None = None
    """Called once, with whether the whole answer was written to an open connection."""

    def head(self, close: bool) -> bytes:
        """Status line and header fields."""
        lines = [f"HTTP/1.1 {self.status} {_REASONS.get(self.status, 'Unknown')}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        lines.append("transfer-encoding: chunked" if self.pieces else f"content-length: {len(self.body)}")
        if close:
            lines.append("connection: close")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")


class BadRequest(Exception):
    """The bytes are not a request that this server takes; `status` says why."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Connection(asyncio.Protocol):
    """One client's connection: requests are answered in the order in which they came."""

    def __init__(self, answer: Callable[[Request], Response], connections: set[Connection]) -> None:
        self._answer = answer
        self._connections = connections
        self._buffer = b""
        self._busy = False
        self._transport: asyncio.Transport | None = None
        self._streaming: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._connections.discard(self)

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        self._pump()

    def close(self) -> None:
        """Drop the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def _pump(self) -> None:
        while self._buffer and not self._busy and self._transport is not None:
            try:
                parsed = parse(self._buffer)
            except BadRequest as error:
                self._buffer = b""
                self._send(Response(error.status, {"content-type": "text/plain"}, b"bad request\n"), close=True)
                return
            if parsed is None:
                if b"100-continue" in self._buffer[:MAX_HEAD].lower() and b"\r\n\r\n" in self._buffer:
                    self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                return
            request, used = parsed
            self._buffer = self._buffer[used:]
            response = self._answer(request)
            close = request.headers.get("connection", "").lower() == "close"
            if response.delay > 0:
                self._busy = True
                asyncio.get_running_loop().call_later(response.delay, self._send_late, response, close)
            else:
                self._send(response, close)

    def _send_late(self, response: Response, close: bool) -> None:
        self._busy = False
        self._send(response, close)
        self._pump()

    async def _stream(self, response: Response, close: bool) -> None:
        """Send a body chunk by chunk, for as long as the client is connected."""
        self._write(response.head(close))
        for piece in response.pieces:
            self._write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await asyncio.sleep(response.pace)
        alive = self._transport is not None and not self._transport.is_closing()
        if self._transport is not None and response.drop:
            self._transport.abort()
        elif self._transport is not None:
            self._write(b"0\r\n\r\n")
            if close:
                self._transport.close()
        if response.done is not None:
            response.done(alive and not response.drop)
        self._busy = False
        self._pump()

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def _send(self, response: Response, close: bool = False) -> None:
        transport = self._transport
        alive = transport is not None and not transport.is_closing()
        if response.pieces and alive:
            self._busy = True
            self._streaming = asyncio.get_running_loop().create_task(self._stream(response, close))
            return
        if transport is not None and alive:
            if response.drop:
                transport.write(response.head(close) + response.body[: len(response.body) // 2])
                transport.abort()
            else:
                transport.write(response.head(close) + response.body)
                if close:
                    transport.close()
        if response.done is not None:
            response.done(alive and not response.drop)


def parse(data: bytes) -> tuple[Request, int] | None:
    """The first request in `data` and its length in bytes; None while it is incomplete. Raises BadRequest."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        if len(data) > MAX_HEAD:
            raise BadRequest(431)
        return None
    lines = data[:end].decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise BadRequest(400)
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon:
            raise BadRequest(400)
        headers[name.strip().lower()] = value.strip()
    start = end + 4
    if "chunked" in headers.get("transfer-encoding", "").lower():
        chunked = _chunks(data, start)
        if chunked is None:
            return None
        body, used = chunked
    else:
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit():
            raise BadRequest(400)
        if int(length) > MAX_BODY:
            raise BadRequest(413)
        used = start + int(length)
        if len(data) < used:
            return None
        body = data[start:used]
    path, _, query = words[1].partition("?")
    return Request(words[0], path, query, headers, body), used


def _chunks(data: bytes, start: int) -> tuple[bytes, int] | None:
    parts: list[bytes] = []
    size = 0
    while True:
        line_end = data.find(b"\r\n", start)
        if line_end < 0:
            return None
        try:
            length = int(data[start:line_end].split(b";")[0], 16)
        except ValueError:
            raise BadRequest(400) from None
        size += length
        if size > MAX_BODY or length < 0:
            raise BadRequest(413)
        start = line_end + 2
        if len(data) < start + length + 2:
            return None
        if length == 0:
            trailer_end = data.find(b"\r\n", start)
            return (b"".join(parts), trailer_end + 2) if trailer_end >= 0 else None
        parts.append(data[start : start + length])
        start += length + 2
