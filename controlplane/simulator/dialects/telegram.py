"""Telegram's Bot API: the token is in the path; 30 messages a second, one a second per chat, 20 a minute per group."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl

from controlplane.simulator.bucket import Bucket, Counter
from controlplane.simulator.dialects.base import Call, Dialect, Reply, parse_json
from controlplane.simulator.limits import KeyLimits, KeyUse, Refusal
from controlplane.simulator.wire import Request

_PATH = re.compile(r"/bot(?P<token>[^/]+)/(?P<method>[A-Za-z]+)")
_OVERALL = KeyLimits(rpm=1800, burst=30)
_CHAT_BURST = 1.1
"""Additional messages: Telegram allows short bursts in a chat, as the delay of two messages may differ."""


class Telegram(Dialect):
    """`/bot<token>/sendMessage` and `getMe`. Without `--rpm` a bot has the real 30 messages a second."""

    name = "telegram"

    def credential(self, request: Request) -> str:
        match = _PATH.fullmatch(request.path)
        return match["token"] if match else ""

    def limits(self, given: KeyLimits) -> KeyLimits:
        if given.rpm is None:
            return replace(given, rpm=_OVERALL.rpm, burst=given.burst if given.burst is not None else _OVERALL.burst)
        return given

    def read(self, request: Request, use: KeyUse, now: float) -> Call | Reply:
        match = _PATH.fullmatch(request.path)
        name = match["method"].lower() if match else ""
        if name == "getme":
            bot = {"id": 1, "is_bot": True, "first_name": "Simulated", "username": "simulated_bot"}
            return Call(lambda: Reply(200, {"ok": True, "result": bot}))
        if name != "sendmessage":
            return self.error(404, "Not Found")
        given = parse_json(request)
        if given is None:
            form = request.body.decode("utf-8", "replace") or request.query
            given = dict(parse_qsl(form))
        chat, text = given.get("chat_id"), given.get("text")
        if not isinstance(chat, int | str) or isinstance(chat, bool) or chat == "":
            return self.error(400, "Bad Request: chat_id is empty")
        if not isinstance(text, str) or not text:
            return self.error(400, "Bad Request: message text is empty")
        return Call(lambda: self._sent(use, chat, text, now), extra=_chat_limits(use, str(chat), now))

    def refuse(self, refusal: Refusal, wall: float) -> Reply:
        wait = max(1, math.ceil(refusal.wait)) if math.isfinite(refusal.wait) else 3600
        body = {
            "ok": False,
            "error_code": 429,
            "description": f"Too Many Requests: retry after {wait}",
            "parameters": {"retry_after": wait},
        }
        return Reply(429, body, {"retry-after": str(wait)})

    def error(self, status: int, message: str) -> Reply:
        message = {401: "Unauthorized", 429: "Too Many Requests"}.get(status, message)
        return Reply(status, {"ok": False, "error_code": status, "description": message})

    def _sent(self, use: KeyUse, chat: int | str, text: str, now: float) -> Reply:
        kind = "supergroup" if _is_group(str(chat)) else "private"
        message: dict[str, Any] = {
            "message_id": use.requests,
            "date": 1700000000,
            "chat": {"id": chat, "type": kind},
            "text": text,
        }
        return Reply(200, {"ok": True, "result": message})


def _is_group(chat: str) -> bool:
    return chat.startswith(("-", "@"))


def _chat_limits(use: KeyUse, chat: str, now: float) -> dict[str, Counter]:
    if len(use.chats) > 50_000:
        for name in [name for name, counter in use.chats.items() if counter.reset_after(now) == 0.0]:
            del use.chats[name]
    if chat not in use.chats:
        use.chats[chat] = Bucket(1, 1.0, _CHAT_BURST, now)
    found = {"chat": use.chats[chat]}
    if _is_group(chat):
        group = "group " + chat
        if group not in use.chats:
            use.chats[group] = Bucket(20, 60.0, 20, now)
        found["group"] = use.chats[group]
    return found
