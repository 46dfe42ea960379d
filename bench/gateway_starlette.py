"""A bare pass-through by the gateway's HTTP client as one writes it with a web framework: Starlette on uvicorn.

    PROVIDER=http://127.0.0.1:9000 python bench/gateway_starlette.py PORT

It runs in an environment that has `starlette`, `uvicorn[standard]` and `aiohttp`: with uvicorn's own parser in Python, which
is used where `httptools` is not installed, it answers two thirds of the calls.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

_session: aiohttp.ClientSession | None = None


async def passed(request: Request) -> Any:
    global _session
    if _session is None:
        _session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), auto_decompress=False)
    left_out = ("host", "content-length", "connection")
    headers = [(name, value) for name, value in request.headers.items() if name not in left_out]
    url = os.environ["PROVIDER"] + request.url.path.removeprefix("/gateway/llm")
    answer = await _session.request(request.method, url, data=await request.body(), headers=headers)

    async def parts() -> AsyncIterator[bytes]:
        async with answer:
            async for part in answer.content.iter_any():
                yield part

    fields = {
        name: value for name, value in answer.headers.items() if name.lower() not in ("transfer-encoding", "connection")
    }
    return StreamingResponse(parts(), status_code=answer.status, headers=fields)


if __name__ == "__main__":
    application = Starlette(routes=[Route("/{path:path}", passed, methods=["GET", "POST"])])
    uvicorn.run(
        application,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        access_log=False,
        log_level="error",
        http="httptools",
        loop="uvloop",
    )
