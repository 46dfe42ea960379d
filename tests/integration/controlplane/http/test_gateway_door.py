"""What the gateway refuses before it reads a request: more calls than one process may have in progress."""

from __future__ import annotations

from typing import Any

from controlplane.observability import call_counts
from tests.integration.controlplane.http.asgi import Door


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
