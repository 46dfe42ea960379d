"""Tokens that a call is estimated to use, from its body alone."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quotas.engine.costs import MAX_COST
from quotas.engine.estimate import MAX_TEXT, tokens_of

TEXT = "x" * 400  # a hundred tokens


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        ({"messages": [{"role": "user", "content": TEXT}], "max_tokens": 50}, 150),
        ({"messages": [{"role": "user", "content": TEXT}], "max_completion_tokens": 60}, 160),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": TEXT}]}]}, 612),
        ({"input": TEXT, "instructions": TEXT, "max_output_tokens": 70}, 270),
        ({"input": [{"role": "user", "content": [{"type": "input_text", "text": TEXT}]}], "max_output_tokens": 1}, 101),
        ({"system": TEXT, "messages": [{"role": "user", "content": TEXT}], "max_tokens": 10}, 210),
        ({"system": [{"type": "text", "text": TEXT}], "messages": [], "max_tokens": 10}, 110),
        ({"contents": [{"parts": [{"text": TEXT}]}], "generationConfig": {"maxOutputTokens": 30}}, 130),
        ({"systemInstruction": {"parts": [{"text": TEXT}]}, "contents": [], "generationConfig": {}}, 612),
        ({"prompt": TEXT, "max_tokens": 10, "n": 3}, 130),
        ({"prompt": [TEXT, TEXT], "max_tokens": 10}, 210),
        ({"prompt": [1, 2, 3], "max_tokens": 10}, 13),
        ({"prompt": "", "max_tokens": 10}, 10),
        ({"prompt": "abc"}, 513),
        ({"prompt": TEXT, "max_tokens": None}, 612),
        ({"prompt": TEXT, "max_tokens": "many"}, 612),
        ({"prompt": TEXT, "max_tokens": -1}, 612),
        ({"prompt": TEXT, "max_tokens": True}, 612),
        ({"prompt": TEXT, "max_tokens": 10**30}, MAX_COST),
    ],
)
def test_the_prompts_characters_and_the_output_that_is_asked_for(body, tokens):
    assert tokens_of(body) == tokens
    assert tokens_of(json.dumps(body)) == tokens
    assert tokens_of(json.dumps(body).encode()) == tokens


@pytest.mark.parametrize(
    "body",
    [None, "", "not json", "{", [], {}, 7, {"model": "m"}, {"messages": None}, "[1]", b"\xff", {"max_tokens": 5},
     '{"prompt": "' + "x" * MAX_TEXT + '"}'],
)  # fmt: skip
def test_a_body_without_a_prompt_is_not_estimated(body):
    assert tokens_of(body) is None


def test_media_and_names_are_no_text():
    image = "data:image/png;base64," + "A" * 100_000
    parts = [{"type": "image_url", "image_url": {"url": image}}, {"type": "text", "text": TEXT}]
    assert tokens_of({"messages": [{"role": "user", "content": parts}], "max_tokens": 1}) == 101
    inline = [{"inlineData": {"mimeType": "image/png", "data": "A" * 100_000}}, {"text": TEXT}]
    assert tokens_of({"contents": [{"parts": inline}], "generationConfig": {"maxOutputTokens": 1}}) == 101
    source = {"type": "image", "source": {"type": "base64", "data": "A" * 100_000}}
    assert tokens_of({"messages": [{"role": "user", "content": [source]}], "max_tokens": 1}) == 1


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/embeddings?x=1", "/v1beta/models/e:embedContent"])
def test_what_produces_no_output_is_estimated_without_it(path):
    assert tokens_of({"input": TEXT}, path=path) == 100


def test_the_default_output_is_the_providers():
    assert tokens_of({"input": TEXT}, default_output=20) == 120
    assert tokens_of({"input": TEXT}, default_output=0) == 100


def test_a_body_that_is_nested_deeply_is_read_as_any_other():
    value: object = TEXT
    for _ in range(20_000):
        value = [value]
    assert tokens_of({"messages": value, "max_tokens": 1}) == 101


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
                    lambda inner: st.lists(inner) | st.dictionaries(
                        st.sampled_from(["messages", "prompt", "max_tokens", "n", "generationConfig", "content", "x"]),
                        inner)))  # fmt: skip
def test_whatever_the_body_is_the_estimate_is_a_cost(body):
    found = tokens_of(body)
    assert found is None or (isinstance(found, int) and 0 <= found <= MAX_COST)
