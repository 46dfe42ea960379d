"""`stream_options`: the use of an OpenAI stream, which is reported on request only.

The gateway requests it where the caller has not. Some servers refuse a body that has this member (older versions of Azure's
API, compatible servers that allow no unknown members): they get the body as its caller wrote it, and later calls to the
same place are not changed.
https://platform.openai.com/docs/api-reference/chat/create#chat-create-stream_options
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

Place = tuple[str, str, str, str]
"""Provider, path, query and model: a version or a deployment may be in each."""
_DIALECTS = frozenset({"openai", "azure"})
_MEMBER = b"stream_options"
_STATUSES = frozenset({400, 422})
_ADDED = b',"stream_options":{"include_usage":true}}'
KEPT = 1_000
"""Places that are known to refuse the member."""
_refusing: set[Place] = set()


def with_request(document: Mapping[str, Any], body: bytes, dialect: str, place: Place) -> bytes | None:
    """The body with the request; None where it stays as it is."""
    if (
        dialect not in _DIALECTS
        or document.get("stream") is not True
        or not place[1].endswith("/completions")
        or b"\0" in body[:4]  # in UTF-16 or UTF-32
        or place in _refusing
    ):
        return None
    options = document.get("stream_options")
    if options is None and b'"stream_options"' not in body:
        # The rest of the body stays byte for byte as it was written.
        return body.rstrip()[:-1].rstrip() + _ADDED
    if options is None or (isinstance(options, dict) and options.get("include_usage") is not True):
        changed = {**document, "stream_options": {**(options or {}), "include_usage": True}}
        return json.dumps(changed, separators=(",", ":")).encode()
    return None


def is_refused(status: int, answer: bytes) -> bool:
    """Whether an error is about the request for the use."""
    return status in _STATUSES and _MEMBER in answer


def remember_refusal(place: Place) -> None:
    if len(_refusing) >= KEPT:
        _refusing.clear()
    _refusing.add(place)
