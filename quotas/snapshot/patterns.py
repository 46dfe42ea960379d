"""Endpoint patterns: an HTTP method (or none, for any) and a path in which `*` stands for any characters.

`POST /v1/*` matches `POST /v1/chat` and `POST /v1/chat/7`; `/health` matches that path with every method.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote

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
        """`method` None (unknown) matches every pattern, so that no caller avoids a limit by omitting it."""
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


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A path in every reading that a router may have of it.

    A limit applies if one of the `readings` matches, an exemption only if all of the `plain` ones do: no
    spelling of a path gets past a limit, or into an exemption.
    """

    readings: tuple[str, ...]
    plain: tuple[str, ...]

    def matched_by(self, pattern: Pattern, method: str | None) -> bool:
        return any(pattern.matches(method, path) for path in self.readings)

    def exempted_by(self, pattern: Pattern, method: str | None) -> bool:
        return all(pattern.matches(method, path) for path in self.plain)


@lru_cache(maxsize=4096)
def endpoint_of(text: str) -> Endpoint:
    """The endpoint that a caller names: a path as in a request line, or as a router has decoded it.

    Whether a `?` begins the query or is part of a decoded path is not to be known, so both are looked at. A fragment
    is never sent, so a `#` is part of the path.
    """
    cut = text.partition("?")[0]
    plain = _variants(cut)
    whole = _variants(text) if cut != text else ()
    return Endpoint(tuple(dict.fromkeys((*plain, *whole))), _strict(cut))


@lru_cache(maxsize=4096)
def routed(path: str, full: str = "") -> Endpoint:
    """The endpoint of a path that a router has decoded and matches as it is; `full`: with the script's prefix before."""
    paths = tuple(dict.fromkeys((path, full or path)))
    readings = dict.fromkeys(reading for one in paths for reading in (one, *_normal(one)))
    return Endpoint(tuple(readings), paths[:1])


def _variants(path: str) -> tuple[str, ...]:
    """As it is, decoded, and each as routers normalise it."""
    found: dict[str, None] = {}
    for one in (path, unquote(path, errors="replace")):
        found[one] = None
        for normal in _normal(one):
            found[normal] = None
    return tuple(found)


def _strict(path: str) -> tuple[str, ...]:
    """The readings that an exemption must match: a path that leaves its place by dots or slashes is nowhere exempt."""
    decoded = unquote(path, errors="replace")
    return tuple(dict.fromkeys((path, decoded, _resolved(path), _resolved(decoded))))


def _normal(path: str) -> tuple[str, ...]:
    """Without dots, doubled slashes, parameters of segments and a slash at its end."""
    if not _ODD.search(path):
        return ()
    resolved = _resolved(path)
    bare = _PARAMETERS.sub("", resolved)
    return tuple(one for one in (resolved, bare, bare.rstrip("/") or "/") if one != path)


def _resolved(path: str) -> str:
    """With single slashes, and without `.` and `..` (RFC 3986, 5.2.4)."""
    if "//" not in path and "/." not in path:
        return path
    kept: list[str] = []
    segments = path.split("/")
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment not in ("", "."):
            kept.append(segment)
    end = "/" if kept and segments[-1] in ("", ".", "..") else ""
    return "/" + "/".join(kept) + end


_ODD = re.compile(r"//|/\.|;|./$")
_PARAMETERS = re.compile(r";[^/]*")
