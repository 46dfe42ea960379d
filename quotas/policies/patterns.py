"""Endpoint patterns: an HTTP method (or none, for any) and a path in which `*` stands for any characters.

`POST /v1/*` matches `POST /v1/chat` and `POST /v1/chat/7`; `/health` matches that path with every method.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "QUERY"})


class BadPattern(ValueError):
    """Not an endpoint pattern: write an optional HTTP method and a path, such as `POST /v1/*`."""


@dataclass(frozen=True, slots=True)
class Pattern:
    text: str
    method: str
    """Upper case; empty for any."""
    prefix: str
    """The path up to its first `*`: what doesn't begin so can't match."""
    rest: re.Pattern[str] | None
    """For the whole path; None where there is no `*` and the path must be equal, or where `*` ends it."""
    exact: bool

    def matches(self, method: str | None, path: str) -> bool:
        """`method` None (not told) matches every pattern: nobody gets round a limit by leaving it out."""
        if self.method and method is not None and method != self.method:
            return False
        if self.exact:
            return path == self.prefix
        return path.startswith(self.prefix) and (self.rest is None or self.rest.fullmatch(path) is not None)


def compile_pattern(text: str) -> Pattern:
    """Raises `BadPattern`. A blank pattern or `*` matches everything."""
    words = text.split()
    if not words:
        return Pattern(text, "", "", None, False)
    method, path = ("", words[0]) if len(words) == 1 else (words[0].upper(), words[1])
    method = "" if method == "*" else method
    if len(words) > 2 or not path.startswith(("/", "*")) or (method and method not in METHODS):
        raise BadPattern(f"{text!r} is no endpoint pattern: write an optional HTTP method and a path, as in POST /v1/*")
    prefix, star, tail = path.partition("*")
    if not star:
        return Pattern(text, method, path, None, True)
    rest = re.compile(".*".join(re.escape(part) for part in path.split("*")), re.DOTALL) if tail else None
    return Pattern(text, method, prefix, rest, False)


def path_of(endpoint: str) -> str:
    """The path without query and fragment, which are no part of an endpoint."""
    return endpoint.partition("?")[0].partition("#")[0]
