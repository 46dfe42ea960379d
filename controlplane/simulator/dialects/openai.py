"""OpenAI and Azure OpenAI: `x-ratelimit-*` with Go durations until the bucket is full again, `retry-after` and `retry-after-ms` on 429."""

from __future__ import annotations

import hashlib
import json
import math
import re
from typing import Any

from controlplane.simulator import summary
from controlplane.simulator.dialects.base import Call, Dialect, Reply, parse_json, sse, whole
from controlplane.simulator.limits import KeyUse, Refusal
from controlplane.simulator.wire import Request

MODELS = ("gpt-4o-mini", "gpt-4o", "text-embedding-3-small")
_CREATED = 1721172741
_DEPLOYMENT = re.compile(r"/openai/deployments/(?P<name>[^/]+)/(?P<rest>chat/completions|embeddings)")
_PURPOSE = re.compile(rb'name="purpose"\r\n\r\n([a-z-]+)')


class OpenAI(Dialect):
    """`/v1/chat/completions` (also with tools), `/v1/embeddings`, `/v1/files` (upload), `/v1/models`; Azure's
    `/openai/deployments/{name}/...`."""

    name = "openai"

    def read(self, request: Request, use: KeyUse, now: float) -> Call | Reply:
        path = request.path.rstrip("/")
        deployment = _DEPLOYMENT.fullmatch(path)
        if deployment is not None:
            path = f"/v1/{deployment['rest']}"
        if path == "/v1/files" and request.method == "POST":
            return self._upload(request)
        if path == "/v1/models" and request.method == "GET":
            return Call(lambda: Reply(200, {"object": "list", "data": [_model(name) for name in MODELS]}))
        reader = {"/v1/chat/completions": self._chat, "/v1/embeddings": self._embeddings}.get(path)
        if reader is None:
            return self._invalid(404, f"Invalid URL ({request.method} {request.path})")
        if request.method != "POST":
            return self._invalid(405, f"Not allowed to {request.method} on {request.path}.")
        body = parse_json(request)
        if body is None:
            return self._invalid(400, "We could not parse the JSON body of your request.")
        if deployment is not None:
            body.setdefault("model", deployment["name"])
        if not isinstance(body.get("model"), str):
            return self._invalid(400, "you must provide a model parameter", "model")
        return reader(body)

    def limit_headers(self, use: KeyUse, now: float, wall: float) -> dict[str, str]:
        found: dict[str, str] = {}
        for unit, counter in use.counters.items():
            found[f"x-ratelimit-limit-{unit}"] = str(math.floor(counter.limit))
            found[f"x-ratelimit-remaining-{unit}"] = str(counter.remaining(now))
            found[f"x-ratelimit-reset-{unit}"] = go_duration(counter.reset_after(now))
        return found

    def refuse(self, refusal: Refusal, wall: float) -> Reply:
        short = {"requests": "requests per min (RPM)", "tokens": "tokens per min (TPM)"}.get(refusal.unit, refusal.unit)
        never = math.isinf(refusal.wait)
        wait = "" if never else f" Please try again in {go_duration(refusal.wait)}."
        message = (
            f"Rate limit reached for organization org-simulated on {short}: Limit {refusal.limit:.0f}, "
            f"Used {max(0, refusal.used):.0f}, Requested {refusal.asked:.0f}.{wait} "
            "Visit https://platform.openai.com/account/rate-limits to learn more."
        )
        headers = {}
        if not never:
            headers = {
                "retry-after": str(max(1, math.ceil(refusal.wait))),
                "retry-after-ms": str(max(1, math.ceil(refusal.wait * 1000))),
            }
        body = {"message": message, "type": refusal.unit, "param": None, "code": "rate_limit_exceeded"}
        return Reply(429, {"error": body}, headers)

    def error(self, status: int, message: str) -> Reply:
        kind, code = {
            401: ("invalid_request_error", "invalid_api_key"),
            403: ("invalid_request_error", "unsupported_country_region_territory"),
            429: ("requests", "rate_limit_exceeded"),
        }.get(status, ("server_error", None) if status >= 500 else ("invalid_request_error", None))
        return Reply(status, {"error": {"message": message, "type": kind, "param": None, "code": code}})

    def _invalid(self, status: int, message: str, param: str | None = None) -> Reply:
        error = {"message": message, "type": "invalid_request_error", "param": param, "code": None}
        return Reply(status, {"error": error})

    def _chat(self, body: dict[str, Any]) -> Call | Reply:
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages:
            return self._invalid(400, "Invalid type for 'messages': expected a non-empty array.", "messages")
        parts = summary.texts(messages)
        prompt = sum(summary.tokens(part) for part in parts)
        room = whole(body.get("max_completion_tokens", body.get("max_tokens")), 64)
        text = summary.summarise(parts[-1] if parts else "", room)
        completion = min(room, summary.tokens(text))

        calls = _tool_calls(body, text)

        def answer() -> Reply:
            if body.get("stream") is True:
                return _stream(body, text, prompt, completion, calls)
            message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
            if calls:
                message |= {"content": None, "tool_calls": calls}
            return Reply(
                200,
                {
                    "id": "chatcmpl-" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:24],
                    "object": "chat.completion",
                    "created": _CREATED,
                    "model": body["model"],
                    "choices": [
                        {
                            "index": 0,
                            "message": message,
                            "logprobs": None,
                            "finish_reason": "tool_calls" if calls else "stop",
                        }
                    ],
                    "usage": {
                        "prompt_tokens": prompt,
                        "completion_tokens": completion,
                        "total_tokens": prompt + completion,
                    },
                    "service_tier": "default",
                },
            )

        return Call(answer, prompt + room, prompt + completion)

    def _embeddings(self, body: dict[str, Any]) -> Call | Reply:
        given = body.get("input")
        inputs = [given] if isinstance(given, str) else given
        if not isinstance(inputs, list) or not inputs or not all(isinstance(item, str) for item in inputs):
            return self._invalid(400, "'$.input' is invalid. Please check the API reference.", "input")
        used = sum(summary.tokens(item) for item in inputs)

        def answer() -> Reply:
            data = [
                {"object": "embedding", "index": index, "embedding": _vector(item)} for index, item in enumerate(inputs)
            ]
            usage = {"prompt_tokens": used, "total_tokens": used}
            return Reply(200, {"object": "list", "data": data, "model": body["model"], "usage": usage})

        return Call(answer, used, used)

    def _upload(self, request: Request) -> Call | Reply:
        """A file that is uploaded as `multipart/form-data`: what came is answered with its size and digest."""
        if not request.headers.get("content-type", "").startswith("multipart/form-data"):
            return self._invalid(400, "Expected multipart/form-data.")
        purpose = _PURPOSE.search(request.body)
        digest = hashlib.sha256(request.body).hexdigest()
        return Call(
            lambda: Reply(
                200,
                {
                    "id": f"file-{digest[:24]}", "object": "file", "bytes": len(request.body), "created_at": _CREATED,
                    "filename": digest, "purpose": purpose[1].decode() if purpose else "", "status": "processed",
                },
            )
        )  # fmt: skip


def _tool_calls(body: dict[str, Any], text: str) -> list[dict[str, Any]]:
    """One call of the first tool that the body offers; its arguments contain what is hard to pass on unchanged."""
    tools = body.get("tools")
    if not isinstance(tools, list) or not tools:
        return []
    name = str(tools[0].get("function", {}).get("name", "tool"))
    arguments = json.dumps({"text": text, "odd": '\u2028 \u00e9 \\ " data: x\n\n', "n": 1.10}, ensure_ascii=False)
    return [{"id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}}]


def _stream(body: dict[str, Any], text: str, prompt: int, completion: int, calls: list[dict[str, Any]]) -> Reply:
    """One chunk per word. The use is in a separate last chunk, if `stream_options` requests it."""
    base = {"id": "chatcmpl-stream", "object": "chat.completion.chunk", "created": _CREATED, "model": body["model"]}
    words = text.split(" ")
    parts = [word + (" " if number < len(words) - 1 else "") for number, word in enumerate(words)]
    deltas: list[dict[str, Any]] = [*({"content": part} for part in parts), {}]
    if calls:
        whole_text = calls[0]["function"]["arguments"]
        opening = {**calls[0], "index": 0, "function": {**calls[0]["function"], "arguments": ""}}
        pieces = [whole_text[at : at + 7] for at in range(0, len(whole_text), 7)]
        deltas = [{"tool_calls": [opening]}]
        deltas += [{"tool_calls": [{"index": 0, "function": {"arguments": piece}}]} for piece in pieces]
        deltas += [{}]
    chunks: list[Any] = [
        {
            **base,
            "choices": [
                {"index": 0, "delta": delta, "finish_reason": None if delta else ("tool_calls" if calls else "stop")}
            ],
        }
        for delta in deltas
    ]
    options = body.get("stream_options")
    if isinstance(options, dict) and options.get("include_usage") is True:
        usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
        chunks = [{**chunk, "usage": None} for chunk in chunks] + [{**base, "choices": [], "usage": usage}]
    return sse([*chunks, "[DONE]"])


def go_duration(wait: float) -> str:
    """A duration as Go prints it: `6m0s`, `1.2s`, `9ms`; milliseconds are rounded up."""
    ms = math.ceil(wait * 1000 - 1e-6)
    if ms < 1000:
        return f"{max(0, ms)}ms" if ms else "0s"
    minutes, ms = divmod(ms, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{ms / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": _CREATED, "owned_by": "system"}


def _vector(text: str) -> list[float]:
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return [round((byte - 127.5) / 127.5 / 4, 6) for byte in digest[:16]]
