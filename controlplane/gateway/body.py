"""A request's body: read whole where it is small, else passed on as it comes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from controlplane.gateway.encodings import decoded
from controlplane.http.request import Disconnected, Receive, wait_gone
from quotas.rest.problems import ProblemError

READ = 1024 * 1024
"""Bytes up to which a body is kept, so that it can be estimated and sent to another account."""


class Body:
    """`first` is the whole body where `is_whole`, else its beginning."""

    __slots__ = ("_ended", "_is_read", "_limit", "_receive", "_size", "declared", "fault", "first")

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive = receive
        self._limit = limit
        self._size = 0
        self._is_read = False
        self.first = b""
        self.declared: int | None = None
        """`Content-Length`; None for a body that comes in chunks."""
        self._ended: asyncio.Event | None = None
        """Set at the end of the body, where somebody waits for that."""
        self.fault: Exception | None = None
        """Why a body could not be sent on to its end: its caller's doing, and no fault of the provider."""

    async def begin(self, declared: int | None) -> None:
        """Read what is kept. Raises `Disconnected`, and a problem for a body above the limit."""
        self.declared = declared
        if declared is not None and declared > self._limit:
            raise self._refusal()
        parts: list[bytes] = []
        while not self._is_read and self._size <= READ:
            parts.append(await self._next())
        if self._size > self._limit:
            raise self._refusal()
        self.first = b"".join(parts)

    @property
    def is_whole(self) -> bool:
        return self._is_read

    def document(self, encoding: str = "") -> dict[str, Any] | None:
        """The JSON object that it is, also compressed; None where it is none, is not whole, or is too large."""
        if not self._is_read or len(self.first) > READ:
            return None
        text = decoded(self.first, encoding, READ + 1)
        if text is None or len(text) > READ or text.lstrip()[:1] != b"{":
            return None
        try:
            # Text in UTF-8 as it is: what finds out the encoding of bytes takes as long as a small body itself.
            found = json.loads(text if b"\0" in text[:4] else text.decode("utf-8", "surrogatepass"))
        except (ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None

    async def rest(self) -> AsyncIterator[bytes]:
        """All of a body that is not whole, as it comes. Raises `Disconnected` where the caller goes away."""
        yield self.first
        self.first = b""
        while not self._is_read:
            part = await self._next()
            if self._size > self._limit:
                self.fault = self._refusal()
                raise Disconnected
            yield part

    async def gone(self) -> None:
        """Return when the caller has gone away."""
        if not self._is_read:
            if self._ended is None:
                self._ended = asyncio.Event()
            await self._ended.wait()
        await wait_gone(self._receive)

    async def _next(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self.fault = Disconnected()
            raise self.fault
        part: bytes = message.get("body", b"")
        self._size += len(part)
        if not message.get("more_body", False):
            self._is_read = True
            if self._ended is not None:
                self._ended.set()
        return part

    def _refusal(self) -> ProblemError:
        return ProblemError("body-too-large", "Body too large", 413, f"A body may have {self._limit} bytes.")
