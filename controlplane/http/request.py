"""A request as the fast path reads it and as the views use it."""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import IO, Any

from quotas.rest.caller import Caller

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
IN_MEMORY = 1 << 20
"""Bytes of a body that are kept in memory; the rest goes to a temporary file."""


_DECIDING = frozenset(
    {"authorization", "host", "content-type", "content-length", "content-encoding", "idempotency-key"}
)
"""Header fields that the fast path reads."""


class Disconnected(Exception):
    """The client disconnected before its request was complete."""


@dataclass(slots=True)
class LeanRequest:
    """The part of DRF's request that the views of the API use."""

    path: str
    headers: Mapping[str, str]
    auth: Caller
    data: Any = field(default_factory=dict)
    method: str = "POST"


def headers_of(scope: Scope) -> dict[str, str] | None:
    """Header fields by their names in lower case; None if a decisive one is repeated: that is for Django to
    read."""
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        key = name.decode("latin-1")
        if key in found and key in _DECIDING:
            return None
        found[key] = value.decode("latin-1")
    return found


async def read_body(receive: Receive, limit: int) -> bytes:
    """The whole body, or its first bytes up to just above `limit`. Raises `Disconnected`."""
    message = await receive()
    if message["type"] == "http.disconnect":
        raise Disconnected
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        return body
    parts, size = [body], len(body)
    while message.get("more_body", False) and size <= limit:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        parts.append(message.get("body", b""))
        size += len(parts[-1])
    return b"".join(parts)


async def wait_gone(receive: Receive) -> None:
    """Return when the client has disconnected. The request's body has been read."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def spool_body(receive: Receive, limit: int) -> tuple[IO[bytes], int]:
    """As `read_body`, into a file that is kept in memory while it is small; (file at its beginning, size)."""
    spool: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115  closed by its user
    size, more = 0, True
    while more and size <= limit:
        message = await receive()
        if message["type"] == "http.disconnect":
            spool.close()
            raise Disconnected
        part = message.get("body", b"")
        size += len(part)
        spool.write(part)
        more = message.get("more_body", False)
    spool.seek(0)
    return spool, size
