"""Anthropic: `anthropic-ratelimit-*` with RFC 3339 times of the full refill, `retry-after` on 429."""

from __future__ import annotations

import hashlib
import math
from datetime import UTC, datetime
from typing import Any

from controlplane.simulator import summary
from controlplane.simulator.dialects.base import Call, Dialect, Reply, parse_json, seconds, sse, whole
from controlplane.simulator.limits import KeyUse, Refusal
from controlplane.simulator.wire import Request

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}


class Anthropic(Dialect):
    """`POST /v1/messages`."""

    name = "anthropic"

    def read(self, request: Request, use: KeyUse, now: float) -> Call | Reply:
        if request.path.rstrip("/") != "/v1/messages" or request.method != "POST":
            return self.error(404, "Not found")
        body = parse_json(request)
        if body is None:
            return self.error(400, "The request body is not valid JSON")
        if not isinstance(body.get("model"), str):
            return self.error(400, "model: Field required")
        if not isinstance(body.get("messages"), list) or not body["messages"]:
            return self.error(400, "messages: at least one message is required")
        if whole(body.get("max_tokens"), 0) == 0:
            return self.error(400, "max_tokens: Field required")
        parts = summary.texts(body["messages"])
        prompt = sum(summary.tokens(part) for part in parts)
        room = whole(body["max_tokens"], 1)
        text = summary.summarise(parts[-1] if parts else "", room)
        output = min(room, summary.tokens(text))

        def answer() -> Reply:
            if body.get("stream") is True:
                return _stream(body["model"], text, prompt, output)
            return Reply(
                200,
                {
                    "id": "msg_" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:24],
                    "type": "message",
                    "role": "assistant",
                    "model": body["model"],
                    "content": [{"type": "text", "text": text}],
                    "stop_reason": "end_turn",
                    "stop_sequence": None,
                    "usage": {
                        "input_tokens": prompt,
                        "cache_creation_input_tokens": 0,
                        "cache_read_input_tokens": 0,
                        "output_tokens": output,
                    },
                },
            )

        return Call(answer, prompt + room, prompt + output)

    def limit_headers(self, use: KeyUse, now: float, wall: float) -> dict[str, str]:
        found: dict[str, str] = {}
        for unit, counter in use.counters.items():
            at = datetime.fromtimestamp(math.ceil(wall + counter.reset_after(now)), UTC)
            found[f"anthropic-ratelimit-{unit}-limit"] = str(math.floor(counter.limit))
            found[f"anthropic-ratelimit-{unit}-remaining"] = str(counter.remaining(now))
            found[f"anthropic-ratelimit-{unit}-reset"] = at.strftime("%Y-%m-%dT%H:%M:%SZ")
        return found

    def refuse(self, refusal: Refusal, wall: float) -> Reply:
        if refusal.unit == "concurrency":
            message = "Number of concurrent connections has exceeded your rate limit. Please try again later."
        else:
            message = (
                "This request would exceed your organization's rate limit of "
                f"{refusal.limit:.0f} {refusal.unit} per minute."
            )
        reply = self.error(429, message)
        return Reply(429, reply.body, {"retry-after": seconds(refusal.wait)})

    def error(self, status: int, message: str) -> Reply:
        kind = _TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
        return Reply(status, {"type": "error", "error": {"type": kind, "message": message}, "request_id": None})


def _stream(model: str, text: str, prompt: int, output: int) -> Reply:
    """The first event has the use of the prompt, the last but one that of the answer."""
    started = {
        "input_tokens": prompt,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": 1,
    }
    delta = {"type": "text_delta", "text": text}
    message: dict[str, Any] = {
        "id": "msg_stream", "type": "message", "role": "assistant", "model": model, "content": [], "stop_reason": None,
        "stop_sequence": None, "usage": started,
    }  # fmt: skip
    return sse(
        [
            {"type": "message_start", "message": message},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "index": 0, "delta": delta},
            {"type": "content_block_stop", "index": 0},
            {
                "type": "message_delta",
                "delta": {"stop_reason": "end_turn", "stop_sequence": None},
                "usage": {"output_tokens": output},
            },
            {"type": "message_stop"},
        ],
        named=True,
    )
