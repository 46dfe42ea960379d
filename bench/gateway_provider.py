"""A provider that costs next to nothing: fixed answers on raw sockets, streams with a chunk every so often.

    python -m bench.gateway_provider PORT

`POST` with `"stream":true` in its body streams `x-chunks` chunks, one every `x-interval` seconds, each with the time at
which it was sent (`time.monotonic`, one clock for all processes of a machine); all else gets a chat completion, after
`x-delay` seconds.
"""

from __future__ import annotations

import asyncio
import sys
import time

ANSWER = (
    b'{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"gpt-4o-mini","choices":[{"index":0,"message":'
    b'{"role":"assistant","content":"' + b"word " * 40 + b'"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":9,"completion_tokens":40,"total_tokens":49}}'
)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(ANSWER)
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":40,"total_tokens":49}}\n\n'


class Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        length = int(fields.get(b"content-length", b"0"))
        if len(body) < length:
            return
        self._buffer = body[length:]
        assert self._transport is not None
        if b'"stream":true' in body or b'"stream": true' in body:
            chunks, interval = int(fields.get(b"x-chunks", b"40")), float(fields.get(b"x-interval", b"0"))
            self._task = asyncio.get_running_loop().create_task(self._stream(chunks, interval))
        elif delay := float(fields.get(b"x-delay", b"0")):
            asyncio.get_running_loop().call_later(delay, self._write, HEAD + ANSWER)
        else:
            self._transport.write(HEAD + ANSWER)

    async def _stream(self, chunks: int, interval: float) -> None:
        self._write(STREAM)
        loop = asyncio.get_running_loop()
        next_at = loop.time()
        for number in range(chunks):
            self._send(
                b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"%d word "}}],"at":%.6f}\n\n'
                % (number, time.monotonic())
            )
            if interval:
                next_at += interval
                await asyncio.sleep(max(0.0, next_at - loop.time()))
        self._send(USAGE)
        self._send(b"data: [DONE]\n\n")
        self._write(b"0\r\n\r\n")

    def _send(self, data: bytes) -> None:
        self._write(b"%x\r\n%b\r\n" % (len(data), data))

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
