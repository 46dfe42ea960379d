"""What a gateway on this server and this client can be at best: it passes a request on and an answer back, no more.

`PROVIDER` names the provider's address.
"""

from __future__ import annotations

import os
from typing import Any

import aiohttp

_session: aiohttp.ClientSession | None = None


async def application(scope: Any, receive: Any, send: Any) -> None:
    global _session
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    if _session is None:
        _session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), auto_decompress=False)
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    left_out = (b"host", b"content-length", b"connection")
    headers = [(name.decode(), value.decode()) for name, value in scope["headers"] if name not in left_out]
    url = os.environ["PROVIDER"] + scope["path"].removeprefix("/gateway/llm")
    async with _session.request(scope["method"], url, data=body, headers=headers) as response:
        passed = [
            (name.lower(), value)
            for name, value in response.raw_headers
            if name.lower() not in (b"transfer-encoding", b"connection")
        ]
        await send({"type": "http.response.start", "status": response.status, "headers": passed})
        async for part in response.content.iter_any():
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
