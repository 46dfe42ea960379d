"""LangChain's client of OpenAI through the gateway: nothing but its base URL and key are changed."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.support.gateway_scene import PROMPT, Scene
from tests.support.instance import wait_until

langchain_openai = pytest.importorskip("langchain_openai", reason="langchain-openai is not installed (group clients)")


def model_of(scene: Scene, pool: str = "llm", **options: Any) -> Any:
    url = f"{scene.instance.url}/gateway/{pool}/v1"
    return langchain_openai.ChatOpenAI(model="gpt-4o-mini", base_url=url, api_key=scene.key, **options)


def test_a_chat_is_answered_and_its_use_is_settled(scene: Scene) -> None:
    before = scene.used("tokens", "tokens")
    answer = model_of(scene, default_headers={"Sluice-User": "langchain-chat"}).invoke(PROMPT)
    assert answer.content
    used = answer.usage_metadata["total_tokens"]
    assert used > 0
    wait_until(lambda: scene.used("tokens", "tokens") - before == used, 10, f"{used} tokens are charged")


def test_a_stream_arrives_in_parts_and_as_the_same_text(scene: Scene) -> None:
    model = model_of(scene)
    parts = [part.content for part in model.stream(PROMPT)]
    assert len([part for part in parts if part]) > 1
    assert "".join(parts) == model.invoke(PROMPT).content


def test_a_tool_is_called_whole_and_streamed(scene: Scene) -> None:
    tool = {"type": "function", "function": {"name": "note", "description": "Note it.", "parameters": {
        "type": "object", "properties": {"text": {"type": "string"}},
    }}}  # fmt: skip
    model = model_of(scene).bind_tools([tool])
    (call,) = model.invoke(PROMPT).tool_calls
    assert call["name"] == "note" and call["args"]["text"] == PROMPT
    streamed: Any = None
    for part in model.stream(PROMPT):
        streamed = part if streamed is None else streamed + part
    assert [json.dumps(one["args"]) for one in streamed.tool_calls] == [json.dumps(call["args"])]


def test_its_own_retry_after_a_refusal_of_ours_succeeds_at_the_first_try(scene: Scene) -> None:
    model = model_of(scene, max_retries=1, default_headers={"Sluice-Keys": "few=langchain"})
    assert model.invoke(PROMPT).content
    began = time.monotonic()
    assert model.invoke(PROMPT).content
    assert time.monotonic() - began >= 0.5, "it waited for the policy `few`"
