"""Conversations stay on the account that has their prompt in its cache."""

from __future__ import annotations

from typing import Any

from tests.support.gateway_scene import Scene


def turns(*contents: str) -> dict[str, Any]:
    roles = ["user", "assistant"] * len(contents)
    messages = [{"role": role, "content": text} for role, text in zip(roles, contents, strict=False)]
    return {"model": "m", "messages": [{"role": "system", "content": "terse"}, *messages]}


def account(scene: Scene, body: dict[str, Any], **fields: str) -> str:
    answer = scene.call("cached", "/v1/whole", json=body, headers=fields)
    assert answer.status_code == 200
    return answer.headers["sluice-account"]


def test_a_conversation_keeps_its_account_by_the_beginning_of_its_prompt(scene: Scene) -> None:
    firsts = {text: account(scene, turns(text)) for text in map(str, range(8))}
    assert set(firsts.values()) == {"one", "two"}  # what only shares a system prompt is spread
    for text, first in firsts.items():
        assert account(scene, turns(text, "answer", "next question")) == first


def test_a_named_conversation_comes_before_its_prompt(scene: Scene) -> None:
    named = {account(scene, turns(str(number)), **{"Sluice-Sticky": "talk-1"}) for number in range(6)}
    assert len(named) == 1


def test_cached_tokens_are_shown(scene: Scene) -> None:
    call = scene.recent(scene.call("raw", "/v1/whole"))
    assert call["actual"]["cached_tokens"] == 6 and call["actual"]["tokens"] == 10
