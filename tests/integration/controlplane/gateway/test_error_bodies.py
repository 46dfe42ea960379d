"""Bodies that the gateway reads whole, from a provider that does as it likes."""

from __future__ import annotations

import asyncio
import time

import aiohttp
import pytest

from controlplane.gateway import upstream
from tests.integration.queues.test_webhook_post import drip, receiving

HEAD = b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n{"


def test_an_error_body_has_one_deadline_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "WHOLE", 0.5)

    async def read(port: int) -> bytes:
        timeout = aiohttp.ClientTimeout(total=30)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(f"http://127.0.0.1:{port}/") as answer,
        ):
            return await upstream.read_all(answer, 1024 * 1024)

    with receiving(drip(HEAD)) as port:
        began = time.monotonic()
        with pytest.raises(upstream.Unanswered, match="timeout"):
            asyncio.run(read(port))
        assert time.monotonic() - began < 10.0
