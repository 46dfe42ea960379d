"""Actual use: of documents, of the last events of streams, and at the end of what is too long to be kept whole."""

from __future__ import annotations

import json

import pytest

from quotas.engine.dialects import read
from tests.unit.quotas.engine.dialects.test_inside import chunk, sse

START = {
    "type": "message_start",
    "message": {"usage": {"input_tokens": 25, "cache_read_input_tokens": 9, "output_tokens": 1}},
}
DELTA = {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 15}}
OPENAI = {"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21}


@pytest.mark.parametrize(
    ("dialect", "events", "tokens"),
    [
        ("openai", (chunk(usage=None), {"choices": [], "usage": OPENAI}, "[DONE]"), 21),
        ("openai", (chunk(usage={"total_tokens": 9}), chunk(usage={"total_tokens": 21}), "[DONE]"), 21),
        ("openai", (chunk(usage={"prompt_tokens": 9, "completion_tokens": 12}),), 21),
        ("openai", ({"type": "response.completed", "response": {"usage": {"input_tokens": 4, "output_tokens": 5, "total_tokens": 9}}},), 9),
        ("openai", ({"type": "response.incomplete", "response": {"usage": {"input_tokens": 4, "output_tokens": 5}}},), 9),
        ("azure", (chunk(), {"choices": [], "usage": OPENAI}, "[DONE]"), 21),
        ("groq", (chunk(), chunk("", x_groq={"usage": OPENAI}), "[DONE]"), 21),
        ("mistral", (chunk(), chunk("", usage=OPENAI), "[DONE]"), 21),
        ("anthropic", (START, {"type": "content_block_delta"}, DELTA, {"type": "message_stop"}), 40),
        ("anthropic", (START, {"type": "message_delta", "usage": {"input_tokens": 25, "output_tokens": 15}}), 40),
        ("anthropic", (START, {"type": "message_delta", "usage": {"input_tokens": 3, "output_tokens": 15}}), 18),
        ("anthropic", (START, {"type": "message_delta", "usage": {"input_tokens": 0, "output_tokens": 15}}), 40),
        ("gemini", ({"usageMetadata": {"totalTokenCount": 7}}, {"usageMetadata": {"totalTokenCount": 31}}), 31),
    ],
)  # fmt: skip
def test_use_in_the_events_of_a_stream(dialect, events, tokens):
    body = sse(*events)
    assert read(dialect, 200, {"content-type": "text/event-stream"}, body).usage == {"tokens": tokens}
    assert read(dialect, 200, {}, body.replace("\n", "\r\n").encode()).usage == {"tokens": tokens}
    padded = sse(*[chunk("x" * 100)] * 9000, *events)
    assert read(dialect, 200, {}, padded.encode()).usage["tokens"] >= tokens - 26, "longer than what is read whole"


@pytest.mark.parametrize(
    ("dialect", "body", "tokens"),
    [
        ("openai", {"usage": OPENAI}, 21),
        ("openai", {"usage": {"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": None}}, 21),
        ("openai", {"usage": {"prompt_tokens": 5, "total_tokens": 5}}, 5),
        ("openai", {"status": "completed", "usage": {"input_tokens": 4, "output_tokens": 5, "total_tokens": 9}}, 9),
        ("gemini", [{"usageMetadata": {"totalTokenCount": 7}}, {"usageMetadata": {"totalTokenCount": 31}}], 31),
        ("anthropic", {"usage": {"input_tokens": 10, "cache_creation_input_tokens": 3, "output_tokens": 5}}, 18),
    ],
)
def test_use_of_documents(dialect, body, tokens):
    assert read(dialect, 200, {}, json.dumps(body)).usage == {"tokens": tokens}


def test_use_at_the_end_of_a_document_that_is_too_long():
    text = json.dumps(
        {"data": [{"embedding": [0.123456789] * 200_000}], "usage": {"prompt_tokens": 8, "total_tokens": 8}}
    )
    assert len(text) > 1_000_000
    assert read("openai", 200, {}, text.encode()).usage == {"tokens": 8}
    assert read("openai", 200, {}, text[:9000].encode(), tail=text[-9000:].encode()).usage == {"tokens": 8}
    assert read("openai", 200, {}, text[:9000].encode()).usage == {}


def test_generic_use_by_configuration_in_streams_and_lines():
    settings = {"usage": {"credits": "meta.usage.credits"}}
    events = [{"meta": {"usage": {"credits": count}}} for count in (1, 4)]
    assert read("generic", 200, {}, sse(*events), settings=settings).usage == {"credits": 4}
    lines = "\n".join(json.dumps(event) for event in events)
    assert read("generic", 200, {}, lines, settings=settings).usage == {"credits": 4}


def test_use_up_to_where_a_stream_broke_off_is_counted():
    body = sse(START, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})
    outcome = read("anthropic", 200, {}, body)
    assert (outcome.category, outcome.usage) == ("server", {"tokens": 26})


def test_what_a_model_writes_is_no_use():
    text = json.dumps({"usage": {"total_tokens": 10**6}})
    assert read("openai", 200, {}, sse(chunk(text), chunk(f"data: {text}"))).usage == {}
