"""Refusals inside a 200, in documents and in streams: the body outranks the status."""

from __future__ import annotations

import json

import pytest

from quotas.engine.dialects import read
from tests.unit.quotas.engine.dialects.test_certainty import anthropic

NOW = 1_695_999_417.0


def sse(*events, named=False):
    lines = []
    for event in events:
        if named:
            lines.append(f"event: {event.get('type', 'message')}")
        lines.append(f"data: {event if isinstance(event, str) else json.dumps(event)}\n")
    return "\n".join(lines) + "\n"


def chunk(text="Hello", **more):
    return {"id": "c", "object": "chat.completion.chunk", "choices": [{"delta": {"content": text}}], **more}


def failed(code):
    return {"type": "response.failed", "response": {"status": "failed", "error": {"code": code, "message": "No."}}}


def graphql(kind, message="API rate limit exceeded", data=None, code=None):
    return {"data": data, "errors": [{"type": kind, "message": message, "extensions": {"code": code}}]}


DOCUMENTS = [
    ("github", graphql("RATE_LIMITED"), "rate_limited"),
    ("github", graphql("RATE_LIMIT", code="graphql_rate_limit"), "rate_limited"),
    ("github", graphql("RATE_LIMITED", data={"viewer": {"login": "x"}}), "rate_limited"),
    ("github", graphql(None, "You have exceeded a secondary rate limit."), "rate_limited"),
    ("github", graphql("NOT_FOUND", "Could not resolve to a User"), "validation"),
    ("github", graphql("FORBIDDEN", "Resource not accessible"), "auth"),
    ("github", graphql("NOT_FOUND", "Could not resolve", data={"a": {"id": 1}, "b": None}), "ok"),
    ("github", {"data": {"viewer": {"login": "x"}}}, "ok"),
    ("slack", {"ok": False, "error": "ratelimited"}, "rate_limited"),
    ("slack", {"ok": False, "error": "internal_error"}, "server"),
    ("shopify", {"errors": [{"message": "Throttled"}]}, "rate_limited"),
    ("shopify", {"errors": [{"message": "x", "extensions": {"code": "INTERNAL_SERVER_ERROR"}}]}, "server"),
    ("shopify", {"data": {"shop": {"id": 1}}, "extensions": {"cost": {"actualQueryCost": 3}}}, "ok"),
    ("gemini", [{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "Quota"}}], "rate_limited"),
    ("gemini", [{"candidates": []}, {"error": {"code": 503, "status": "UNAVAILABLE"}}], "server"),
    ("openai", {"error": {"message": "Provider returned error", "code": 429}}, "rate_limited"),
    ("openai", {"id": "x", "choices": [{"error": {"code": 502, "message": "Upstream"}}]}, "server"),
    ("openai", {"status": "failed", "error": {"code": "rate_limit_exceeded", "message": "x"}}, "rate_limited"),
    ("openai", {"status": "completed", "error": None, "output": []}, "ok"),
    ("openai", {"base_resp": {"status_code": 1002, "status_msg": "rate limit"}}, "rate_limited"),
    ("openai", {"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}, "quota_exhausted"),
    ("openai", {"base_resp": {"status_code": 0, "status_msg": "success"}, "choices": []}, "ok"),
    ("generic", {"error": {"code": 429, "message": "Slow down"}}, "rate_limited"),
    ("generic", {"errors": [{"message": "x", "extensions": {"code": "RATELIMITED"}}]}, "rate_limited"),
    ("generic", {"error": {"code": -32601, "message": "JSON-RPC"}}, "ok"),
    ("generic", {"error": "none of the above"}, "ok"),
]
STREAMS = [
    ("openai", (chunk(), {"error": {"message": "x", "type": "server_error"}}), "server"),
    ("openai", (chunk(), {"error": {"message": "x", "code": "rate_limit_exceeded"}}), "rate_limited"),
    ("openai", (chunk(), {"error": {"message": "x", "type": "insufficient_quota"}}), "quota_exhausted"),
    ("openai", ({"error": {"message": "quota exceeded"}}, "[DONE]"), "rate_limited"),
    ("openai", ({"type": "error", "code": "rate_limit_exceeded", "message": "x"},), "rate_limited"),
    ("openai", ({"type": "response.created", "response": {"error": None}}, failed("server_error")), "server"),
    ("openai", (failed("rate_limit_exceeded"),), "rate_limited"),
    ("openai", (failed("invalid_prompt"),), "validation"),
    ("openai", (chunk('{"error": {"code": 429}}'), chunk(error=None), "[DONE]"), "ok"),
    ("azure", (chunk(), {"error": {"message": "x", "code": "429"}}), "rate_limited"),
    ("groq", (chunk(), {"error": {"message": "x", "type": "over_capacity", "status_code": 503}}), "server"),
    ("mistral", (chunk(), {"error": {"message": "Rate limit exceeded", "code": "1300"}}), "rate_limited"),
    ("anthropic", ({"type": "message_start"}, anthropic("overloaded_error", "Overloaded")), "server"),
    ("anthropic", (anthropic("rate_limit_error", "x"),), "rate_limited"),
    ("anthropic", (anthropic("invalid_request_error", '{"message": "Too many requests, please wait"}'),), "rate_limited"),
    ("anthropic", (anthropic("api_error", "Streaming error: 404: Rate limit exceeded on API."),), "rate_limited"),
    ("anthropic", (anthropic("authentication_error", "invalid x-api-key"),), "auth"),
    ("anthropic", ({"type": "message_start"}, {"type": "message_stop"}), "ok"),
    ("gemini", ({"candidates": []}, {"error": {"code": 503, "status": "UNAVAILABLE"}}), "server"),
]  # fmt: skip


@pytest.mark.parametrize(("dialect", "body", "category"), DOCUMENTS)
def test_documents(dialect, body, category):
    for form in (body, json.dumps(body), json.dumps(body).encode()):
        outcome = read(dialect, 200, {"content-type": "application/json"}, form)
        assert (outcome.category, outcome.status) == (category, 200)


@pytest.mark.parametrize(("dialect", "events", "category"), STREAMS)
@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("named", [True, False])
def test_streams(dialect, events, category, declared, named):
    events = tuple(event for event in events if not (named and isinstance(event, str)))
    body = sse(*events, named=named)
    outcome = read(dialect, 200, {"content-type": "text/event-stream"} if declared else {}, body.encode())
    assert (outcome.category, outcome.status) == (category, 200)


def test_a_refusal_inside_waits_as_one_with_its_own_status():
    headers = {"x-ratelimit-remaining": "0", "x-ratelimit-limit": "5000", "x-ratelimit-resource": "graphql"}
    headers |= {"x-ratelimit-reset": str(int(NOW) + 600)}
    outcome = read("github", 200, headers, graphql("RATE_LIMITED"), now=NOW)
    assert (outcome.retry_after, outcome.resource, outcome.error) == (600.0, "graphql", "429 API rate limit exceeded")
    secondary = read("github", 200, {}, graphql(None, "You have exceeded a secondary rate limit."), now=NOW)
    assert secondary.retry_after == 60.0
    gemini = [{"error": {"code": 429, "message": "Please retry in 38.2s.", "status": "RESOURCE_EXHAUSTED"}}]
    assert read("gemini", 200, {}, gemini).retry_after == 38.2


def test_an_error_in_the_middle_of_a_long_stream_is_found_at_its_end():
    long = sse(*[chunk("x" * 200)] * 3000)
    assert len(long) < 1_000_000
    error = sse({"error": {"message": "x", "type": "server_error"}})
    assert read("openai", 200, {}, (long + error).encode()).category == "server"
    assert read("openai", 200, {}, (long + long + error).encode()).category == "server"
    assert read("openai", 200, {}, long[:5000], tail=error).category == "server"
    assert read("openai", 200, {}, (long + long).encode()).category == "ok"
