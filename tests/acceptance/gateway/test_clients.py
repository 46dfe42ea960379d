"""What clients of providers do through the gateway: tools, uploads, cancelling, timeouts, other dialects."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from tests.support.gateway_scene import MESSAGES, PROMPT, SECRETS, Scene
from tests.support.instance import wait_until

TOOLS: Any = [{"type": "function", "function": {"name": "note", "parameters": {"type": "object"}}}]
BODY = {"model": "gpt-4o-mini", "messages": MESSAGES, "tools": TOOLS}
STREAMED = BODY | {"stream": True, "stream_options": {"include_usage": True}}


@pytest.mark.parametrize("body", [BODY, STREAMED], ids=["whole", "streamed"])
def test_tool_calls_pass_byte_for_byte(scene: Scene, body: dict[str, Any]) -> None:
    credential = {"Authorization": f"Bearer {SECRETS['GATEWAY_ONE']}"}
    direct = httpx.post(f"{scene.sim.base_url}/v1/chat/completions", json=body, headers=credential)
    through = scene.call("llm", json=body)
    assert through.status_code == direct.status_code == 200 and b"tool_calls" in direct.content
    assert through.content == direct.content
    assert through.headers["content-type"] == direct.headers["content-type"]


def test_the_sdk_reads_tool_calls_of_a_stream(scene: Scene) -> None:
    client = scene.openai("llm")
    whole = client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES, tools=TOOLS)
    assert whole.choices[0].finish_reason == "tool_calls" and whole.choices[0].message.tool_calls
    with client.chat.completions.stream(model="gpt-4o-mini", messages=MESSAGES, tools=TOOLS) as stream:
        final = stream.get_final_completion()
    (call,) = final.choices[0].message.tool_calls or []
    expected = whole.choices[0].message.tool_calls[0].function.arguments  # type: ignore[union-attr]
    assert call.function.arguments == expected and json.loads(expected)["text"] == PROMPT


def test_a_stream_arrives_as_it_is_sent(scene: Scene) -> None:
    scene.sim.faults({"pace": 0.5})
    stream = scene.openai("llm").chat.completions.create(model="gpt-4o-mini", messages=MESSAGES, stream=True)
    first = next(iter(stream))
    began = time.monotonic()
    rest = list(stream)
    assert first.choices and len(rest) > 4
    assert time.monotonic() - began > 1.0, "the provider sends for some 4 s: what was kept back would come at once"


def test_a_file_is_uploaded_by_the_sdk(scene: Scene) -> None:
    for size in (1000, 3_000_000):
        content = b"x" * size
        made = scene.openai("llm").files.create(file=("batch.jsonl", content), purpose="batch")
        assert made.purpose == "batch" and made.bytes > size
        assert made.filename == hashlib.sha256(b"").hexdigest() or len(made.filename) == 64


def test_an_upload_is_streamed_and_not_collected(scene: Scene) -> None:
    scene.provider.uploaded = 0
    part = b"y" * 65536

    def parts() -> Iterator[bytes]:
        for _ in range(32):
            yield part
        # The rest is sent when the provider has what was sent before.
        wait_until(lambda: scene.provider.uploaded > 1_900_000, 15, lambda: str(scene.provider.uploaded))
        for _ in range(32):
            yield part

    answer = scene.call("raw", "/v1/upload", json=None, content=parts())
    assert answer.status_code == 200 and scene.provider.uploaded >= 64 * len(part)


def test_a_client_that_cancels_frees_its_slot(scene: Scene) -> None:
    scene.sim.faults({"pace": 1.0})

    async def cancel() -> None:
        url = f"{scene.instance.url}/gateway/llm/v1"
        client = openai.AsyncOpenAI(base_url=url, api_key=scene.key, default_headers={"Sluice-User": "u-cancels"})
        stream = await client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES, stream=True)
        async for _ in stream:
            break
        await stream.close()
        waiting = asyncio.ensure_future(
            client.chat.completions.create(
                model="gpt-4o-mini", messages=MESSAGES, extra_headers={"Sluice-User": "u-c2"}
            )
        )
        scene.sim.faults({"latency": 20})
        await asyncio.sleep(0.5)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await client.close()

    asyncio.run(cancel())
    wait_until(lambda: scene.is_idle("llm"), 3)
    wait_until(lambda: scene.calls(user="u-cancels", outcome="cancelled"), 5)


def test_a_timeout_of_the_sdk_is_its_own_and_frees_the_slot(scene: Scene) -> None:
    scene.sim.faults({"latency": 20})
    client = scene.openai("llm", timeout=0.7, max_retries=0)
    with pytest.raises(openai.APITimeoutError):
        client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES)
    wait_until(lambda: scene.is_idle("llm"), 3)


def test_the_anthropic_sdk_waits_for_the_time_of_a_refusal(scene: Scene) -> None:
    import anthropic  # here: it takes a second, in each process that collects tests

    few = {"Sluice-Keys": "few=claude"}
    url = f"{scene.instance.url}/gateway/claude"
    client = anthropic.Anthropic(base_url=url, api_key=scene.key, default_headers=few, max_retries=1)
    body: Any = {"model": "claude", "max_tokens": 20, "messages": MESSAGES}
    client.messages.create(**body)
    refused = scene.call("claude", "/v1/messages", headers=few, json=body)
    assert refused.status_code == 429 and refused.json()["error"]["type"] == "rate_limit_error"
    client.messages.create(**body)  # its one retry comes at the time that was named


def test_an_error_in_mid_stream_reaches_the_sdk(scene: Scene) -> None:
    error = json.dumps({"error": {"message": "The server had an error.", "type": "server_error", "code": None}})
    scene.sim.faults({"pace": 0.01, "break_after": 2, "event": error})
    client = scene.openai("llm", default_headers={"Sluice-User": "u-late-error"})
    with pytest.raises(openai.APIError, match="The server had an error"):
        list(client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES, stream=True))
    wait_until(lambda: scene.calls(user="u-late-error"), 5)
    call = scene.calls(user="u-late-error")[0]
    assert call["outcome"] == "server" and 0 < call["actual"]["tokens"] < 100 < call["cost"]["tokens"]


def test_a_stream_that_breaks_off_is_an_error_for_the_sdk(scene: Scene) -> None:
    scene.sim.faults({"pace": 0.01, "break_after": 3})
    client = scene.openai("llm")
    with pytest.raises((openai.APIConnectionError, httpx.RemoteProtocolError)):
        list(client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES, stream=True))


def test_the_azure_sdk_works_unchanged(scene: Scene) -> None:
    client = openai.AzureOpenAI(
        azure_endpoint=f"{scene.instance.url}/gateway/azure", api_key=scene.key, api_version="2024-10-21"
    )
    answer = client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES)
    assert answer.choices[0].message.content == PROMPT
    chunks = client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == PROMPT
    wait_until(lambda: scene.calls(pool="azure"), 5)
    call = scene.calls(pool="azure")[0]
    assert call["model"] == "gpt-4o-mini" and call["actual"]["tokens"] > 0


GEMINI = {"contents": [{"role": "user", "parts": [{"text": PROMPT}]}], "generationConfig": {"maxOutputTokens": 30}}


def test_gemini_is_called_with_its_own_fields(scene: Scene) -> None:
    base = f"{scene.instance.url}/gateway/gemini/v1beta/models/gemini-2.0-flash"
    fields = {"x-goog-api-key": scene.key}
    answer = httpx.post(f"{base}:generateContent", json=GEMINI, headers=fields)
    assert answer.json()["candidates"][0]["content"]["parts"][0]["text"] == PROMPT
    call = scene.recent(answer)
    usage = answer.json()["usageMetadata"]
    assert call["model"] == "gemini-2.0-flash" and call["actual"]["tokens"] == usage["totalTokenCount"]
    assert call["actual"]["cached_tokens"] == usage["cachedContentTokenCount"]
    streamed = httpx.post(f"{base}:streamGenerateContent?alt=sse", json=GEMINI, headers=fields)
    assert streamed.status_code == 200 and streamed.text.count("data: ") > 2
    assert scene.recent(streamed)["actual"]["tokens"] == usage["totalTokenCount"]
    # The key in the query, where Gemini's older clients put theirs, would be in every proxy's log.
    in_query = httpx.post(f"{base}:generateContent?key={scene.key}", json=GEMINI)
    assert in_query.status_code == 401


def test_gemini_fails_over_and_says_when(scene: Scene) -> None:
    url = f"{scene.instance.url}/gateway/gemini/v1beta/models/gemini-2.0-flash:generateContent"
    scene.gemini.faults({"invalid_key": SECRETS["GATEWAY_ONE"]})
    answers = [httpx.post(url, json=GEMINI, headers={"x-goog-api-key": scene.key}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert {answer.headers["sluice-account"] for answer in answers} == {"two"}


def test_telegram_needs_no_token_in_the_path(scene: Scene) -> None:
    answer = scene.call("tg", "/sendMessage", json={"chat_id": 5, "text": "hello"})
    assert answer.json()["result"]["text"] == "hello" and SECRETS["GATEWAY_ONE"] not in answer.text
    form = scene.call("tg", "/sendMessage", json=None, data={"chat_id": "6", "text": "by form"})
    assert form.json()["result"]["text"] == "by form"
    assert scene.call("tg", "/getMe", json=None).json()["result"]["is_bot"]
    path = scene.recent(form)["path"]
    assert path == "/sendMessage"
    missing = scene.call("tg", "/sendMessage", json={"chat_id": 5})
    assert missing.status_code == 400 and missing.json()["description"].startswith("Bad Request")
    assert scene.call("tg", f"/../bot{SECRETS['GATEWAY_ONE']}/getMe", json=None).status_code in (400, 404)


def test_an_error_in_mid_stream_reaches_the_anthropic_sdk(scene: Scene) -> None:
    import anthropic  # here: it takes a second, in each process that collects tests

    error = json.dumps({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})
    scene.claude.faults({"pace": 0.01, "break_after": 3, "event": error})
    fields = {"Sluice-User": "u-late-claude"}
    client = anthropic.Anthropic(
        base_url=f"{scene.instance.url}/gateway/claude", api_key=scene.key, default_headers=fields, max_retries=0
    )
    text = ""
    with (
        pytest.raises((anthropic.APIStatusError, anthropic.APIError)),
        client.messages.stream(model="claude", max_tokens=20, messages=MESSAGES) as stream,
    ):
        for part in stream.text_stream:
            text += part
        stream.get_final_message()
        raise AssertionError(f"it ended as if it were whole, with {text!r}")
    wait_until(lambda: scene.calls(user="u-late-claude"), 5)
    assert scene.calls(user="u-late-claude")[0]["outcome"] == "server"
