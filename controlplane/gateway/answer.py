"""A provider's answer on its way to the caller: fields, body as it comes, errors without credentials."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import aiohttp

from controlplane.gateway import fields
from controlplane.gateway.call import Call
from controlplane.gateway.progress import Progress
from controlplane.gateway.upstream import Way, parts_of
from controlplane.gateway.usage import EventMeter, Meter
from controlplane.http.request import Send
from quotas.engine.dialects.redaction import without
from quotas.engine.types import Decision, LimitState
from quotas.rest import decisions


class AnswerSender:
    """Passes one answer on. `limits` are the caller's, as its admission found them."""

    def __init__(self, call: Call, progress: Progress, limits: Sequence[LimitState], send: Send) -> None:
        self._call, self._progress, self._send = call, progress, send
        self._limits = limits

    async def stream(self, response: aiohttp.ClientResponse, meter: Meter, way: Way) -> None:
        """Pass the body on as it comes. `send` waits while the caller is slow, and nothing is read meanwhile."""
        self._progress.is_stream = isinstance(meter, EventMeter)
        length = response.headers.get("content-length", "")
        headers = self._headers(response, way)
        if length.isdigit() and not self._call.hides_usage:
            headers.append((b"content-length", length.encode()))
        await self._start(response.status, headers)
        send, feed = self._send, meter.feed
        async for part in parts_of(response):
            if passed := feed(part):
                await send({"type": "http.response.body", "body": passed, "more_body": True})
                self._progress.passed()
        await send({"type": "http.response.body", "body": meter.end(), "more_body": False})
        self._progress.passed()

    async def error(self, response: aiohttp.ClientResponse, body: bytes, way: Way) -> None:
        """Pass on an error that was read whole; a credential that it echoes is taken out."""
        text = without(body.decode("latin-1"), [way.credential]).encode("latin-1")
        headers = self._headers(response, way)
        if self._call.method == "HEAD":
            headers.append((b"content-length", response.headers.get("content-length", "0").encode()))
        else:
            headers.append((b"content-length", b"%d" % len(text)))
        await self._start(response.status, headers)
        await self._send({"type": "http.response.body", "body": text, "more_body": False})
        self._progress.passed()

    async def _start(self, status: int, headers: fields.Pairs) -> None:
        self._progress.answered = status
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    def _headers(self, response: aiohttp.ClientResponse, way: Way) -> fields.Pairs:
        secret = way.credential.encode()
        progress = self._progress
        own = [
            (b"sluice-request-id", self._call.id.encode()),
            (b"sluice-account", way.account.encode("latin-1", "replace")),
            (b"sluice-attempts", b"%d" % progress.attempts),
            (b"sluice-waited", b"%.6f" % progress.waited),
            *(
                (_lower(name), value.encode("latin-1", "replace"))
                for name, value in decisions.headers_of(Decision(True, limits=tuple(self._limits))).items()
                if name.startswith("RateLimit")
            ),
        ]
        if self._call.wishes.preferred:
            own.append((b"preference-applied", self._call.wishes.preferred.encode()))
        names = {name for name, _ in own}
        passed = [
            (name, value)
            for name, value in fields.back(response.raw_headers, limits=way.config.show_provider_limits)
            if name not in names and secret not in value
        ]
        progress.overhead = progress.overhead_now()
        return [*passed, *own, (b"sluice-overhead", b"%.6f" % progress.overhead)]


@lru_cache(maxsize=64)
def _lower(name: str) -> bytes:
    return name.lower().encode()
