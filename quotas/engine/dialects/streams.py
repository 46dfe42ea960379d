"""The JSON values of a body: one document, a list of them, lines of JSON, or the events of a stream.

A stream (server-sent events: https://html.spec.whatwg.org/multipage/server-sent-events.html) reports its errors and
its use in single events, mostly the last ones. Of a body that is too long to be kept whole, the end is read too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

MAX_EVENTS = 5000
_EVENT_LINE = re.compile(r"\A\s*(?:data|event|id|retry)?:")
_OF_INTEREST = re.compile(r"usage|rror|failed|base_resp", re.IGNORECASE)
_USAGE = ("usage", "usageMetadata")
_decoder = json.JSONDecoder()


def parse(text: str) -> Any:
    """The JSON value of `text`; None where it is none."""
    if text.lstrip()[:1] not in ("{", "[", '"'):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def is_stream(text: str, content_type: str) -> bool:
    """Whether a body consists of server-sent events."""
    return content_type.strip().lower().startswith("text/event-stream") or _EVENT_LINE.match(text) is not None


def events(text: str) -> list[Any]:
    """The JSON values of the events that may report use or an error, in order; the last ones where there are many."""
    found = [value for data in _data(text) if _OF_INTEREST.search(data) and (value := parse(data)) is not None]
    return found[-MAX_EVENTS:]


def lines(text: str) -> list[Any]:
    """The values of a body of one JSON value a line, where they may report use or an error."""
    chosen = [line for line in text.splitlines() if line[:1] == "{" and _OF_INTEREST.search(line)]
    return [value for line in chosen[-MAX_EVENTS:] if (value := parse(line)) is not None]


def usage_at_the_end(text: str) -> list[Any]:
    """The last `usage` object of a document whose beginning is not at hand."""
    for name in _USAGE:
        at = text.rfind(f'"{name}"')
        if at < 0:
            continue
        rest = text[at + len(name) + 2 :].lstrip()
        try:
            value, _ = _decoder.raw_decode(rest.removeprefix(":").lstrip())
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            return [{name: value}]
    return []


def _data(text: str) -> Iterator[str]:
    """The data of each event: its `data` lines joined."""
    collected: list[str] = []
    for line in text.splitlines():
        if line.startswith("data:"):
            collected.append(line[5:].removeprefix(" "))
        elif not line.strip() and collected:
            yield "\n".join(collected)
            collected = []
    if collected:
        yield "\n".join(collected)
