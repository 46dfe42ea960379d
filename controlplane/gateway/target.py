"""Where a call goes: the pool, and a path that can't leave the provider's address."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from controlplane.http.request import Scope
from quotas.engine.frozen import quickly_made
from quotas.rest.problems import ProblemError

PREFIX = "/gateway/"
_FORM = re.compile(rb"/gateway/([A-Za-z0-9._-]{1,63})(/[\x21-\x7e]*)")
_FORBIDDEN = re.compile(rb"(?i)\\|#|//|%(?:2f|5c|[01][0-9a-f]|7f)|%(?![0-9a-f]{2})")
"""Backslashes, fragments, empty segments, encoded separators and control characters, and broken escapes."""


@quickly_made
@dataclass(frozen=True, slots=True)
class Target:
    """`path` begins with a slash; `query` is without its question mark. Both are as the caller wrote them."""

    pool: str
    path: str
    query: str


def target_of(scope: Scope) -> Target:
    """Raises a problem for a path that providers and proxies may read in different ways."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode("utf-8", "surrogateescape")
    pool, path = _parted(raw.partition(b"?")[0])
    query: bytes = scope["query_string"]
    if not query.isascii() or any(byte <= 0x20 or byte == 0x7F for byte in query):
        raise ProblemError("invalid-path", "Invalid path", 400, "The query must consist of printable ASCII.")
    return Target(pool, path, query.decode())


@lru_cache(maxsize=1024)
def _parted(raw: bytes) -> tuple[str, str]:
    """The pool and the path behind it. Most calls have one of a few paths."""
    found = _FORM.fullmatch(raw)
    if found is None or _FORBIDDEN.search(found[2]) or any(map(_is_dots, found[2].split(b"/"))):
        detail = "The path must be /gateway/{pool}/{path}, without dot segments, empty segments or encoded separators."
        raise ProblemError("invalid-path", "Invalid path", 400, detail)
    return found[1].decode(), found[2].decode()


def _is_dots(segment: bytes) -> bool:
    """Whether a server may read the segment as `.` or `..`, also after decoding it twice."""
    for _ in range(3):
        if segment.partition(b";")[0] in (b".", b".."):
            return True
        segment = unquote_to_bytes(segment)
    return b"/" in segment or b"\\" in segment
