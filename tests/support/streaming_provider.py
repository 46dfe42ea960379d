"""A provider that streams as slowly, and breaks off as rudely, as a test says. Records what it was sent."""

from __future__ import annotations

import base64
import gzip
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256

CLOSE = b"Connection: close\r\n"
"""Each connection takes one request. Where an answer does not say so, the next call might be sent on it."""
BEGIN = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n" + CLOSE + b"\r\n"
CHUNK = b'data: {"choices": [{"index": 0, "delta": {"content": "word "}}]}\n\n'
USAGE = b'data: {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10, "prompt_tokens_details": {"cached_tokens": 6}}}\n\n'
LIMITED = (
    b'data: {"error": {"message": "Rate limit reached. Please try again in 1s.", "code": "rate_limit_exceeded"}}\n\n'
)
ODD_EVENTS = 'data:{"choices":[{"index":0,"delta":{"content":"北京 🙂 é"}}]}\r\n\r\n'.encode() * 3
"""No space after the colon, lines that end in CRLF, characters of several bytes."""
ODD_USAGE = b'data:{"choices":[],"usage":{"total_tokens":21}}\r\n\r\n'


@dataclass
class StreamingProvider:
    """`/endless` streams until it is hung up on, `/broken` resets in mid-stream, `/silent` never answers, `/whole`
    ends properly, `/stale` reads a second request on the connection of the first and ends it without an answer; all else echoes a JSON answer that names the credential."""

    url: str
    requests: list[bytes] = field(default_factory=list)
    hung_up: threading.Event = field(default_factory=threading.Event)
    sent: int = 0
    """Bytes of the endless streams so far."""
    closed: int = 0
    """Connections that it has closed."""
    uploaded: int = 0
    """Bytes of uploads so far, as they come."""


@contextmanager
def streaming_provider() -> Iterator[StreamingProvider]:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.1)
    provider = StreamingProvider(f"http://127.0.0.1:{listener.getsockname()[1]}")
    stop = threading.Event()

    def accept() -> None:
        while not stop.is_set():
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            threading.Thread(target=_serve_and_close, args=(connection, provider, stop), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield provider
    finally:
        stop.set()
        thread.join()
        listener.close()


def _serve_and_close(connection: socket.socket, provider: StreamingProvider, stop: threading.Event) -> None:
    try:
        _serve(connection, provider, stop)
    finally:
        provider.closed += 1


def _serve(connection: socket.socket, provider: StreamingProvider, stop: threading.Event) -> None:
    with connection:
        data = b""
        while b"\r\n\r\n" not in data:
            piece = connection.recv(65536)
            if not piece:
                return
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        if b"/upload" in head.split(b"\r\n")[0]:
            _take_upload(connection, provider, fields, body)
        while b"/upload" not in head.split(b"\r\n")[0] and len(body) < int(fields.get(b"content-length", b"0")):
            body += connection.recv(65536)
        while (
            fields.get(b"transfer-encoding") == b"chunked"
            and b"/upload" not in head
            and not body.endswith(b"0\r\n\r\n")
        ):
            body += connection.recv(65536)
        provider.requests.append(head + b"\r\n\r\n" + body)
        path = head.split(b" ")[1]
        special = _special(path, fields, body) or _refused(path, fields, body)
        if special is not None:
            ends = special.index(b"\r\n\r\n") + 4 if head.startswith(b"HEAD ") else None
            connection.sendall(special[:ends])
        elif b"/late" in path or b"/limited-inside" in path:
            connection.sendall(BEGIN)  # the head comes first: it is not known yet whether the call can be done
            stop.wait(12 if b"/late" in path else 0.1)
            connection.sendall(_late(path, fields))
        elif b"/stale" in path:
            is_first = sum(path in request for request in provider.requests) == 1
            connection.sendall(_answer(b"200 OK", b"{}", b"Connection: keep-alive\r\n" if is_first else CLOSE))
            if is_first and (again := connection.recv(65536)):
                provider.requests.append(again)
        elif b"/endless" in path:
            _stream_on(connection, provider, stop, BEGIN, 64 * 1024 if b"fat" in path else 0)
        elif b"/broken" in path:
            connection.sendall(BEGIN + _chunk(CHUNK) * 3)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        elif b"/cut" in path:  # a proper close of the connection, but no end of the body
            connection.sendall(BEGIN + _chunk(CHUNK) * 3)
        elif b"/silent" in path:
            stop.wait(60)
        elif b"/whole" in path:
            connection.sendall(BEGIN + _chunk(CHUNK) * 3 + _chunk(USAGE) + _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
        else:
            credential = fields.get(b"authorization", b"")
            status = b"418 Teapot" if b"/echo" in path else b"200 OK"
            answer = b'{"error": {"message": "Key ' + credential + b'"}}'
            connection.sendall(
                b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nSet-Cookie: a=b\r\nX-RateLimit-Limit-Requests: 5\r\n"
                b"X-Echo: %b\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nContent-Length: %d\r\n\r\n%b"
                % (status, credential, len(answer), answer)
            )


def _late(path: bytes, fields: dict[bytes, bytes]) -> bytes:
    is_limited = b"inside/all" in path or (b"inside" in path and b"first" in fields[b"authorization"])
    return _chunk(LIMITED if is_limited else CHUNK + USAGE) + b"0\r\n\r\n"


def _special(path: bytes, fields: dict[bytes, bytes], body: bytes) -> bytes | None:
    """Answers that gateways have stumbled over."""
    credential = fields.get(b"authorization", b"")
    whole = b'{"choices": [{"message": {"content": "hi"}}], "usage": {"total_tokens": 42}}'
    if b"/gzip-error" in path:
        text = gzip.compress(b'{"error": {"message": "Key ' + credential + b' is not allowed to."}}')
        return _answer(b"400 Bad Request", text, b"Content-Encoding: gzip\r\n")
    if b"/gzip" in path:
        return _answer(b"200 OK", gzip.compress(whole), b"Content-Encoding: gzip\r\n")
    if b"/brotli-error" in path:
        return _answer(b"400 Bad Request", b"\x8b\x02\x80" + credential, b"Content-Encoding: br\r\n")
    if b"/hints" in path:
        return b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + _answer(b"200 OK", whole)
    if b"/record" in path:
        return _answer(b"200 OK", b'{"sha256": "%b"}' % sha256(body).hexdigest().encode())
    if b"/no-content" in path:
        return b"HTTP/1.1 204 No Content\r\n" + CLOSE + b"\r\n"
    stream = BEGIN
    if b"/pings" in path:
        return (
            stream + (_chunk(b": ping\n\n") + _chunk(CHUNK)) * 3 + _chunk(USAGE) + _chunk(b": end\n\n") + b"0\r\n\r\n"
        )
    if b"/pinged" in path:  # and cut off
        return stream + _chunk(b": ping\n\n") * 50 + _chunk(CHUNK)
    if b"/zero" in path:
        zero = b'data: {"choices": [], "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}}\n\n'
        return stream + _chunk(CHUNK) + _chunk(zero)
    if b"/bytewise" in path:  # each byte in a chunk of its own: borders inside of characters, and of line ends
        return (
            stream
            + b"".join(_chunk(bytes([byte])) for byte in ODD_EVENTS + ODD_USAGE + b"data:[DONE]\r\n\r\n")
            + b"0\r\n\r\n"
        )
    if b"/overloaded" in path:
        error = b'{"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}'
        return stream + _chunk(b"event: error\ndata: " + error + b"\n\n") + b"0\r\n\r\n"
    if b"/responses" in path:
        done = b'{"type": "response.completed", "response": {"id": "r", "usage": {"input_tokens": 5, "output_tokens": 8, "total_tokens": 13}}}'
        created = b'event: response.created\ndata: {"type": "response.created", "response": {"usage": null}}\n\n'
        return stream + _chunk(created) + _chunk(b"event: response.completed\ndata: " + done + b"\n\n") + b"0\r\n\r\n"
    return None


def _refused(path: bytes, fields: dict[bytes, bytes], body: bytes) -> bytes | None:
    """Redirects, one of them with the credential in base64, and a server that knows no `stream_options`."""
    if b"/answer-of-body" in path:
        return body
    if b"/moved" in path:
        here = b"http://" + fields[b"host"] + b"/v1/record/?q=1"
        there = b"https://elsewhere.example/x" if b"away" in path else here
        basic = base64.b64encode(fields[b"authorization"].rpartition(b" ")[2] + b":")
        return _answer(b"307 Temporary Redirect", b"{}", b"Location: " + there + b"\r\nX-Basic: " + basic + b"\r\n")
    if b"/strict" not in path:
        return None
    if b"stream_options" in body:
        text = b'{"error": {"message": "Unrecognized request argument supplied: stream_options"}}'
        return _answer(b"400 Bad Request", text)
    return BEGIN + _chunk(CHUNK) * 3 + b"0\r\n\r\n"


def _answer(status: bytes, body: bytes, fields: bytes = b"") -> bytes:
    if b"Connection: " not in fields:
        fields += CLOSE
    return b"HTTP/1.1 %b\r\nContent-Type: application/json\r\n%bContent-Length: %d\r\n\r\n%b" % (
        status, fields, len(body), body,
    )  # fmt: skip


def _take_upload(
    connection: socket.socket, provider: StreamingProvider, fields: dict[bytes, bytes], body: bytes
) -> None:
    """Read a body to its end and count it."""
    provider.uploaded = len(body)
    length = fields.get(b"content-length")
    end = body[-5:]
    while provider.uploaded < int(length) if length else end != b"0\r\n\r\n":
        piece = connection.recv(65536)
        if not piece:
            return
        provider.uploaded += len(piece)
        end = (end + piece)[-5:]


def _stream_on(
    connection: socket.socket, provider: StreamingProvider, stop: threading.Event, begin: bytes, padding: int
) -> None:
    chunk = _chunk(b": " + b"x" * padding + b"\n\n" + CHUNK) if padding else _chunk(CHUNK)
    try:
        connection.sendall(BEGIN)
        connection.settimeout(30)
        while not stop.is_set():
            connection.sendall(chunk)
            provider.sent += len(chunk)
            if not padding:
                stop.wait(0.02)
    except OSError:
        provider.hung_up.set()


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)
