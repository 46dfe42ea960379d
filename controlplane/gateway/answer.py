"""Passes a provider's answer on to the caller: fields, body as it comes, errors without credentials."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import aiohttp

from controlplane.gateway import fields
from controlplane.gateway.call import Call
from controlplane.gateway.encodings import decoder_of
from controlplane.gateway.progress import Progress
from controlplane.gateway.upstream import READ_ERRORS, Route, is_bodiless, unanswered
from controlplane.gateway.usage import EventMeter, Meter
from controlplane.http.request import Send
from quotas.engine.dialects.redaction import without
from quotas.engine.types import LimitState
from quotas.rest import decisions

_ADDRESSES = frozenset({b"location", b"content-location", b"operation-location"})
_WITH_ADDRESSES = frozenset({201, 202, *range(300, 400)})
"""Statuses of answers that say where something else is."""


class AnswerSender:
    """Passes one answer on. `limits` are the caller's, as its admission found them."""

    __slots__ = ("_call", "_limits", "_progress", "_send")

    def __init__(self, call: Call, progress: Progress, limits: Sequence[LimitState], send: Send) -> None:
        self._call, self._progress, self._send = call, progress, send
        self._limits = limits

    async def stream(
        self, response: aiohttp.ClientResponse, meter: Meter, route: Route, ended: Callable[[], Awaitable[None]],
        begun: bytes | None,
    ) -> None:  # fmt: skip
        """Pass the body on as it comes. `send` waits while the caller is slow, and nothing is read meanwhile.

        `begun`: the beginning of the body as it came, empty where that is its end; None: the head is passed on without it.
        `ended` is awaited once, when all of the body is known and its last bytes are not passed on yet. What can't be
        decoded from its beginning is found before anything is passed on.
        """
        progress = self._progress
        progress.is_stream = isinstance(meter, EventMeter)
        if self._call.body.is_whole:
            self._call.release()
        length = response.headers.get("content-length", "")
        decoder = decoder_of(response.headers.get("content-encoding", ""))
        part = begun or b""
        if decoder is not None:
            part = decoder.feed(part)
        headers = self._headers(response, route, is_decoded=decoder is not None)
        left = -1
        if length.isdigit() and decoder is None and not self._call.hides_usage:
            headers.append((b"content-length", length.encode()))
            left = int(length)
        send, feed, next_part = self._send, meter.feed, response.content.readany
        if left == 0 or is_bodiless(self._call.method, response.status):
            await ended()
            await self._start(response.status, headers)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            progress.passed()
            return
        await self._start(response.status, headers)
        is_over, is_begun = begun == b"", False
        while not is_over:
            passed = feed(part)
            left -= len(passed)
            if left == 0:
                await ended()
                # The server writes an only part together with the head.
                await send({"type": "http.response.body", "body": passed, "more_body": False})
                progress.passed()
                if not response.content.at_eof():
                    response.close()
                return
            if passed or not is_begun:  # the server sends the head with the first part, be it empty
                await send({"type": "http.response.body", "body": passed, "more_body": True})
                is_begun = True
            if passed:
                progress.passed()
            try:  # here, and not by a coroutine for each part
                part = await next_part()
            except READ_ERRORS as error:
                raise unanswered(error) from error
            is_over = not part
            if decoder is not None:
                part = decoder.feed(part)
        last = (feed(decoder.end()) if decoder is not None else b"") + meter.end()
        await ended()
        await send({"type": "http.response.body", "body": last, "more_body": False})
        progress.passed()

    async def error(self, response: aiohttp.ClientResponse, body: bytes, route: Route) -> None:
        """Pass on an error that was read whole and decoded; a credential that it echoes is taken out."""
        text = without(body.decode("latin-1"), [route.credential]).encode("latin-1")
        headers = self._headers(response, route, is_decoded=True)
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

    def _headers(self, response: aiohttp.ClientResponse, route: Route, *, is_decoded: bool) -> fields.Pairs:
        progress = self._progress
        own = [
            (b"sluice-request-id", self._call.id.encode()),
            (b"sluice-account", route.account.encode("latin-1", "replace")),
            (b"sluice-attempts", b"%d" % progress.attempts),
            (b"sluice-waited", b"%.6f" % progress.waited),
            *decisions.limit_fields(self._limits),
        ]
        if self._call.wishes.preferred:
            own.append((b"preference-applied", self._call.wishes.preferred.encode()))
        names = {name for name, _ in own}
        if is_decoded:
            names.add(b"content-encoding")
        passed = [
            (name, value)
            for name, value in fields.back(response.raw_headers, limits=route.config.show_provider_limits)
            if name not in names
        ]
        if response.status in _WITH_ADDRESSES:
            passed = [(name, route.reached_here(value) if name in _ADDRESSES else value) for name, value in passed]
        every = b"\n".join([value for _, value in passed])
        if any(form in every for form in route.secrets):
            passed = [(name, value) for name, value in passed if not any(form in value for form in route.secrets)]
        progress.overhead = progress.overhead_now()
        return [*passed, *own, (b"sluice-overhead", b"%.6f" % progress.overhead)]
