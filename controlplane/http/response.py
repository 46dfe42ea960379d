"""Responses of the fast path: the bytes that Django's views and middleware would send."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from django.conf import settings
from rest_framework.response import Response

from controlplane.http.request import Send
from quotas.rest.problems import MEDIA_TYPE, ProblemError

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def rendered(data: Any) -> bytes:
    """JSON as DRF writes it."""
    text = _encode(data)
    if not text.isascii():
        text = text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return text.encode()


@lru_cache(maxsize=256)
def _lower(name: str) -> bytes:
    return name.lower().encode("latin-1")


def security_headers() -> list[tuple[bytes, bytes]]:
    """Header fields that the middleware adds to every response."""
    chosen = [
        ("x-frame-options", settings.X_FRAME_OPTIONS),
        ("x-content-type-options", "nosniff" if settings.SECURE_CONTENT_TYPE_NOSNIFF else None),
        ("referrer-policy", settings.SECURE_REFERRER_POLICY),
        ("cross-origin-opener-policy", settings.SECURE_CROSS_ORIGIN_OPENER_POLICY),
    ]
    return [(name.encode(), value.encode()) for name, value in chosen if value]


@dataclass(slots=True)
class Answer:
    """Status, fields and body of an answer."""

    status: int
    body: bytes
    media_type: str = "application/json"
    headers: Iterable[tuple[str, str]] = ()

    @classmethod
    def of_problem(cls, problem: ProblemError) -> Answer:
        return cls(problem.status, rendered(problem.document()), MEDIA_TYPE, problem.headers.items())

    @classmethod
    def of_response(cls, response: Response) -> Answer:
        """The response of an API view."""
        named = [(name, value) for name, value in response.items() if name != "Content-Type"]
        return cls(response.status_code, rendered(response.data), response.content_type or "application/json", named)

    async def send(self, send: Send, fixed: Iterable[tuple[bytes, bytes]] = ()) -> None:
        """`fixed` are fields in the form of ASGI."""
        headers = [
            (b"content-type", self.media_type.encode("latin-1")),
            (b"content-length", b"%d" % len(self.body)),
            *fixed,
        ]
        for name, value in self.headers:
            headers.append((_lower(name), value.encode("latin-1")))
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": False})
