"""A conversation is identified by the beginning of its prompt."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.gateway.conversation import prefix_of


def chat(*contents: Any, system: str = "You are terse.", model: str = "m") -> dict[str, Any]:
    turns = [{"role": role, "content": text} for role, text in zip(["user", "assistant"] * 3, contents, strict=False)]
    return {"model": model, "messages": [{"role": "system", "content": system}, *turns]}


def test_later_turns_belong_to_the_same_conversation() -> None:
    first = prefix_of(chat("hello"))
    assert first and prefix_of(chat("hello", "hi", "and now?")) == first
    assert prefix_of({**chat("hello"), "temperature": 1, "stream": True, "max_tokens": 5}) == first


@pytest.mark.parametrize(
    "other", [chat("good day"), chat("hello", system="You are kind."), chat("hello", model="n"), chat("hell", "o")]
)
def test_another_beginning_is_another_conversation(other: dict[str, Any]) -> None:
    assert prefix_of(other) != prefix_of(chat("hello"))


def test_what_marks_the_cache_and_how_content_is_written_do_not_matter() -> None:
    marked = [{"type": "text", "text": "hello", "cache_control": {"type": "ephemeral"}}]
    assert prefix_of(chat(marked)) == prefix_of(chat("hello"))


@pytest.mark.parametrize(
    "document",
    [
        {"model": "m", "input": "a long story"},
        {"model": "m", "prompt": "a long story"},
        {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]},
        {"contents": [{"parts": [{"text": "hello"}]}]},
        {"model": "m", "input": [{"role": "user", "content": [{"type": "input_text", "text": "x"}]}]},
    ],
)
def test_each_kind_of_prompt_has_a_beginning(document: dict[str, Any]) -> None:
    assert len(prefix_of(document)) == 32


@pytest.mark.parametrize("document", [None, {}, {"messages": []}, {"prompt": 5}, {"messages": "\ud800", "model": None}])
def test_bodies_without_a_prompt_have_none(document: dict[str, Any] | None) -> None:
    found = prefix_of(document)
    assert found == "" or document == {"messages": "\ud800", "model": None}
