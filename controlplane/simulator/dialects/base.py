"""The interface of a dialect: the caller's key, the cost of a call, and the format of answers, limits and errors."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from controlplane.simulator.bucket import Counter
from controlplane.simulator.limits import KeyLimits, KeyUse, Refusal
from controlplane.simulator.wire import Request


@dataclass(frozen=True, slots=True)
class Reply:
    """Status, header fields and JSON body of an answer."""

    status: int
    body: Any
    headers: dict[str, str] = field(default_factory=dict)

    def encoded(self) -> bytes:
        """The body's bytes."""
        return self.body.encode() if isinstance(self.body, str) else json.dumps(self.body).encode()


@dataclass(frozen=True, slots=True)
class Call:
    """A valid request: its estimated cost, its actual use, and its answer."""

    answer: Callable[[], Reply]
    estimate: int = 0
    """Tokens that are charged on arrival."""
    used: int = 0
    """Tokens that it uses in the end."""
    extra: dict[str, Counter] = field(default_factory=dict)
    """Further counters that take one request each (a chat's)."""


class Dialect:
    """One provider's protocol. Wall times are Unix seconds by the provider's own clock."""

    name = ""
    stepping = False
    """Whether limits start anew at the end of a window instead of refilling."""
    anonymous = False
    """Whether calls without a key are served (under the key `anonymous`)."""

    def credential(self, request: Request) -> str:
        """The key that the request carries; empty if none."""
        return bearer(request)

    def limits(self, given: KeyLimits) -> KeyLimits:
        """The limits to enforce if the options gave `given`."""
        return given

    def read(self, request: Request, use: KeyUse, now: float) -> Call | Reply:
        """Read a request, or return the error."""
        raise NotImplementedError

    def limit_headers(self, use: KeyUse, now: float, wall: float) -> dict[str, str]:
        """Header fields with the key's limits."""
        return {}

    def refuse(self, refusal: Refusal, wall: float) -> Reply:
        """The answer to a call that a limit refused."""
        return self.error(429, f"Too many {refusal.unit}")

    def error(self, status: int, message: str) -> Reply:
        """An error in the provider's own shape."""
        return Reply(status, {"error": {"message": message}})


def sse(events: Iterable[Any], *, named: bool = False) -> Reply:
    """A stream of server-sent events, each a JSON value or a bare word; `named` puts each one's `type` before it."""
    lines = []
    for event in events:
        if named:
            lines.append(f"event: {event['type']}")
        lines.append(f"data: {event if isinstance(event, str) else json.dumps(event)}\n")
    return Reply(200, "\n".join(lines) + "\n", {"content-type": "text/event-stream"})


def bearer(request: Request) -> str:
    """The token of `Authorization: Bearer`, or the value of `X-Api-Key` or `Api-Key`."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() in ("bearer", "token"):
        return token.strip()
    return request.headers.get("x-api-key") or request.headers.get("api-key") or ""


def parse_json(request: Request) -> dict[str, Any] | None:
    """The body as a JSON object; None if it is not one."""
    try:
        body = json.loads(request.body)
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def whole(value: Any, default: int) -> int:
    """`value` if it is a plausible positive whole number of tokens."""
    return value if type(value) is int and 0 < value <= 1_000_000 else default


def seconds(wait: float) -> str:
    """A wait as whole seconds, rounded up, at least 1; an hour where waiting never helps."""
    return str(max(1, math.ceil(wait))) if math.isfinite(wait) else "3600"
