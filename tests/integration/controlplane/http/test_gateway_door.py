"""What the gateway refuses before a call is admitted: more calls than one process may have, and a body that does not come."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from controlplane.gateway import watch
from controlplane.observability import call_counts
from tests.integration.controlplane.http.asgi import Door
from tests.integration.controlplane.http.test_hot_path import headers
from tests.integration.quotas.api.conftest import api
from tests.integration.quotas.api.test_pools import make_pool


def test_more_calls_than_a_process_may_have_are_refused_with_a_time(door: Door, settings: Any) -> None:
    settings.GATEWAY_MAX_CALLS = 0
    before = call_counts.streams.open
    refused = door.request("POST", "/gateway/llm/v1/chat/completions", b"{}", [("x-stainless-lang", "python")])
    assert refused.status == 503 and refused.json()["error"]["code"] == "too-many-calls"
    assert refused.headers["retry-after"] == "1" and refused.headers["retry-after-ms"] == "1000"
    assert "x-should-retry" not in refused.headers
    settings.GATEWAY_MAX_CALLS = 1
    admitted = door.request("POST", "/gateway/llm/v1/chat/completions", b"{}")
    assert admitted.status == 401, "it is read, and has no key"
    assert call_counts.streams.open == before


def test_a_body_that_does_not_come_is_not_waited_for(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "LATE", 0.2)
    make_pool("llm")
    key = api("call", project="acme")
    sent: list[Any] = []
    parts = [{"type": "http.request", "body": b'{"model"', "more_body": True}]

    async def story() -> None:
        async def receive() -> Any:
            if not parts:
                await asyncio.Event().wait()
            return parts.pop()

        async def send(message: Any) -> None:
            sent.append(message)

        path = "/gateway/llm/v1/chat/completions"
        fields = [("host", "localhost"), ("content-length", "100"), *headers(key)]
        scope = {
            "type": "http", "http_version": "1.1", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"",
            "scheme": "http", "server": ("127.0.0.1", "80"), "root_path": "", "client": ("127.0.0.1", "5000"),
            "headers": [(name.lower().encode(), value.encode()) for name, value in fields],
        }  # fmt: skip
        await asyncio.wait_for(door.application(scope, receive, send), 20)

    before = call_counts.streams.open
    door.run(story())
    assert sent[0]["status"] == 408 and b"did not come within" in sent[1]["body"]
    assert b"x-should-retry" not in dict(sent[0]["headers"])
    assert call_counts.streams.open == before
