"""Gemini: the model in the path, the key in `x-goog-api-key`; its errors say when to retry, its header fields nothing.

https://ai.google.dev/api/generate-content
"""

from __future__ import annotations

import math
import re
from typing import Any

from controlplane.simulator import summary
from controlplane.simulator.dialects.base import Call, Dialect, Reply, parse_json, sse, whole
from controlplane.simulator.limits import KeyUse, Refusal
from controlplane.simulator.wire import Request

_PATH = re.compile(r"/v1(?:beta)?/models/(?P<model>[^/:]+):(?P<verb>generateContent|streamGenerateContent)")
_STATUSES = {
    400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
}  # fmt: skip


class Gemini(Dialect):
    """`POST /v1beta/models/{model}:generateContent`, and `:streamGenerateContent?alt=sse`."""

    name = "gemini"

    def credential(self, request: Request) -> str:
        return request.headers.get("x-goog-api-key", "")

    def read(self, request: Request, use: KeyUse, now: float) -> Call | Reply:
        found = _PATH.fullmatch(request.path)
        if found is None or request.method != "POST":
            return self.error(404, f"{request.path} is not found for API version v1beta.")
        body = parse_json(request)
        contents = body.get("contents") if body is not None else None
        if body is None or not isinstance(contents, list) or not contents:
            return self.error(400, "* GenerateContentRequest.contents: contents is not specified")
        parts = summary.texts([{"content": item.get("parts")} for item in contents if isinstance(item, dict)])
        prompt = sum(summary.tokens(part) for part in parts)
        settings = body.get("generationConfig")
        room = whole(settings.get("maxOutputTokens") if isinstance(settings, dict) else None, 64)
        text = summary.summarise(parts[-1] if parts else "", room)
        output = min(room, summary.tokens(text))
        usage = {
            "promptTokenCount": prompt, "candidatesTokenCount": output, "totalTokenCount": prompt + output,
            "cachedContentTokenCount": prompt // 2,
        }  # fmt: skip

        def answer() -> Reply:
            if found["verb"] == "generateContent":
                return Reply(200, _answer(text, found["model"], usage, "STOP"))
            words = text.split(" ")
            events = [_answer(word, found["model"], {"promptTokenCount": prompt}, None) for word in words[:-1]]
            return sse([*events, _answer(words[-1], found["model"], usage, "STOP")])

        return Call(answer, prompt + room, prompt + output)

    def refuse(self, refusal: Refusal, wall: float) -> Reply:
        reply = self.error(429, "You exceeded your current quota, please check your plan and billing details.")
        wait = 60.0 if math.isinf(refusal.wait) else refusal.wait
        reply.body["error"]["details"] = [
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{math.ceil(wait * 1000) / 1000}s"}
        ]
        return reply

    def error(self, status: int, message: str) -> Reply:
        return Reply(
            status, {"error": {"code": status, "message": message, "status": _STATUSES.get(status, "INTERNAL")}}
        )


def _answer(text: str, model: str, usage: dict[str, int], reason: str | None) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": [{"text": text}], "role": "model"}, "index": 0}
    if reason is not None:
        candidate["finishReason"] = reason
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": model}
