"""What an answer used: read from what passes, which is kept only as far as it may report use or an error."""

from __future__ import annotations

import json
import re

MAX_EVENT = 1024 * 1024
"""Bytes of an event that is looked at; a longer one passes unread."""
MAX_KEPT = 64 * 1024
HEAD, TAIL = 64 * 1024, 16 * 1024
FIRST_EVENTS, LAST_EVENTS = 2, 6
_END = re.compile(rb"\r?\n\r?\n|\r\r")
_USAGE = b'"usage'
_REPORT = re.compile(rb'"usage(?:Metadata)?"\s*:\s*\{')
_FAULTS = (b'"error"', b'"response.failed"')
"""A member or a type by which a stream reports that it ends in an error."""
_USAGE_MEMBER = re.compile(rb'"usage"\s*:\s*\{')
_CACHED = re.compile(rb'"(?:cached_tokens|cache_read_input_tokens|cachedContentTokenCount)"\s*:\s*(\d{1,12})\b')
_NO_CHOICES = re.compile(rb'"choices"\s*:\s*\[\s*\]')


class DocumentMeter:
    """For answers that are no stream of events: the beginning and the end of the body."""

    __slots__ = ("_head", "_tail", "events")

    def __init__(self) -> None:
        self._head = bytearray()
        self._tail = b""
        self.events = 0

    def feed(self, part: bytes) -> bytes:
        """Look at a part; what is to be passed on."""
        room = HEAD - len(self._head)
        if room > 0:
            self._head += part[:room]
        if len(part) > room:
            self._tail = (self._tail + part[max(0, room) :])[-TAIL:]
        return part

    def end(self) -> bytes:
        """What is still to be passed on."""
        return b""

    def seen(self) -> tuple[bytes, bytes]:
        """Beginning and end of the body, for a dialect to read."""
        return bytes(self._head), self._tail


class EventMeter:
    """For server-sent events: the first and last ones that report use or an error.

    `hide`: the last event, which has no choices and reports the use that the gateway has requested, is not passed on.
    """

    __slots__ = ("_first", "_hide", "_is_long", "_last", "_rest", "_searched", "events")

    def __init__(self, *, hide: bool = False) -> None:
        self._hide = hide
        self._rest = bytearray()
        self._searched = 0
        self._is_long = False
        self._first: list[bytes] = []
        self._last: list[bytes] = []
        self.events = 0

    def feed(self, part: bytes) -> bytes:
        if not self._rest and not self._is_long and part.endswith(b"\n\n") and b"\r" not in part:
            return self._of_whole_events(part)
        self._rest += part
        passed = bytearray()
        while (end := _END.search(self._rest, max(0, self._searched - 3))) is not None:
            event = bytes(self._rest[: end.end()])
            del self._rest[: end.end()]
            self._searched = 0
            if self._is_long:
                self._is_long = False
                passed += event
            elif not self._took(event):
                passed += event
        self._searched = len(self._rest)
        if len(self._rest) > MAX_EVENT:
            self._is_long = True
            if self._hide:
                passed += self._rest
            self._rest.clear()
            self._searched = 0
        return bytes(passed) if self._hide else part

    def _of_whole_events(self, part: bytes) -> bytes:
        """As `feed`, of events with plain line ends, as most parts are: only those of interest are looked at one by one."""
        self.events += _events_with_data(part)
        at = _next_of_interest(part, 0)
        if at < 0:
            return part
        passed, done = [], 0
        while at >= 0:
            before = part.rfind(b"\n\n", done, at)
            begin = done if before < 0 else before + 2
            end = part.index(b"\n\n", at) + 2
            if self._keep(part[begin:end]):
                passed.append(part[done:begin])
                done = end
            at = _next_of_interest(part, end)
        return b"".join([*passed, part[done:]]) if passed else part

    def end(self) -> bytes:
        event = bytes(self._rest)
        self._rest.clear()
        hidden = bool(event) and not self._is_long and self._took(event)
        return event if self._hide and not hidden else b""

    def seen(self) -> tuple[bytes, bytes]:
        return b"\n\n".join([*self._first, *self._last]), b""

    def _took(self, event: bytes) -> bool:
        """Count an event, and keep it where it is of interest. True where it is not to be passed on."""
        self.events += b"data:" in event  # a comment keeps the connection alive and says nothing
        return _next_of_interest(event, 0) >= 0 and self._keep(event)

    def _keep(self, event: bytes) -> bool:
        """Keep an event that is of interest. True where it is not to be passed on."""
        kept = event if len(event) <= MAX_KEPT else _usage_only(event)
        if len(self._first) < FIRST_EVENTS:
            self._first.append(kept)
        else:
            self._last = [*self._last[1 - LAST_EVENTS :], kept]
        return self._hide and bool(_NO_CHOICES.search(event)) and bool(_USAGE_MEMBER.search(event))


def _next_of_interest(part: bytes, start: int) -> int:
    """Where the next report of use or of an error is; -1 where there is none.

    Providers that report use at a stream's end write `"usage":null` into all events before that: a pattern that is tried at
    each quotation mark would cost more than all else that is done with a part.
    """
    found = -1
    for word in _FAULTS:
        at = part.find(word, start)
        if at >= 0 and (found < 0 or at < found):
            found = at
    at = part.find(_USAGE, start)
    while at >= 0 and (found < 0 or at < found):
        if _REPORT.match(part, at):
            return at
        at = part.find(_USAGE, at + len(_USAGE))
    return found


def _events_with_data(part: bytes) -> int:
    """How many of a part's events have data."""
    events = part.count(b"\n\n")
    if part.count(b"\n\ndata:") + part.startswith(b"data:") == events:  # all begin with it
        return events
    return sum([b"data:" in event for event in part[:-2].split(b"\n\n")])


def _usage_only(event: bytes) -> bytes:
    """Of an event that is too long to be kept (a whole answer at the end of a stream), its last report of use."""
    text = event.decode("utf-8", "replace")
    at = text.rfind('"usage')
    name = "usageMetadata" if text.startswith('"usageMetadata"', at) else "usage"
    rest = text[at + len(name) + 2 :].lstrip().removeprefix(":").lstrip()
    try:
        value, _ = json.JSONDecoder().raw_decode(rest)
    except (ValueError, RecursionError):
        return event[:HEAD]
    return b"data: " + json.dumps({name: value}).encode()


Meter = DocumentMeter | EventMeter


def cached_tokens(head: bytes, tail: bytes) -> int | None:
    """The tokens of the prompt that the provider had in its cache, by an answer's own report; None: it reports none.

    Quotes inside of JSON strings are escaped, so that no text of an answer looks like such a member.
    """
    if b"cache" not in head and b"cache" not in tail:
        return None
    found = [int(number) for part in (head, tail) for number in _CACHED.findall(part)]
    return max(found, default=None)


def meter_of(content_type: str, *, hide: bool) -> Meter:
    if content_type.strip().lower().startswith("text/event-stream"):
        return EventMeter(hide=hide)
    return DocumentMeter()
