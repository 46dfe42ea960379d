"""A provider's answer as the dialects read it: header fields by lower-case name, the body as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import ItemsView, Iterable, Iterator, Mapping, Set
from functools import cached_property
from typing import Any

from quotas.engine.headers import waits

MAX_BODY = 1_000_000
MAX_FIELD = 8192


class Answer:
    """Status, headers and body of one answer. Whatever is in them, reading them never raises."""

    def __init__(self, status: int | None, headers: object, body: object, now: float) -> None:
        self.status = status if isinstance(status, int) and not isinstance(status, bool) else 0
        self.now = now
        self._fields: dict[str, list[str]] = {}
        for name, value in _pairs(headers):
            self._fields.setdefault(name.strip(" \t").lower(), []).append(value[:MAX_FIELD])
        self._body = body

    def all(self, name: str) -> list[str]:
        """Every value of a field, in order."""
        return self._fields.get(name, [])

    def get(self, name: str) -> str | None:
        """The first value of a field; None where there is none."""
        values = self._fields.get(name)
        return values[0].strip(" \t") if values else None

    def names(self) -> Iterable[str]:
        """The names of all fields, in lower case."""
        return self._fields.keys()

    @cached_property
    def clock(self) -> float:
        """The provider's own Unix time when it answered, as well as can be known."""
        return waits.reference_clock(self.get("date"), "age" in self._fields, self.now)

    @cached_property
    def text(self) -> str:
        """The body as text, cut to a million characters."""
        if isinstance(self._body, bytes | bytearray | memoryview):
            return bytes(self._body[:MAX_BODY]).decode("utf-8", "replace")
        if isinstance(self._body, str):
            return self._body[:MAX_BODY]
        return ""

    @cached_property
    def json(self) -> Any:
        """The body parsed; None where it is no JSON. A JSON text inside a JSON string is parsed again, once."""
        if isinstance(self._body, dict | list):
            return self._body
        parsed = _parse(self.text)
        return _parse(parsed) if isinstance(parsed, str) else parsed

    def at(self, *path: str | int) -> Any:
        """The member of the body at `path`; None where there is none."""
        return dig(self.json, *path)

    def text_at(self, *path: str | int) -> str:
        """The string at `path`, else an empty one."""
        value = self.at(*path)
        return value if isinstance(value, str) else ""


def dig(value: Any, *path: str | int) -> Any:
    """Walk down members and indexes; None where one is missing."""
    for step in path:
        if isinstance(step, str) and isinstance(value, dict):
            value = value.get(step)
        elif isinstance(step, int) and isinstance(value, list) and -len(value) <= step < len(value):
            value = value[step]
        else:
            return None
    return value


def _parse(text: str) -> Any:
    if text.lstrip()[:1] not in ("{", "[", '"'):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _pairs(headers: object) -> Iterator[tuple[str, str]]:
    multi = getattr(headers, "multi_items", None)
    if callable(multi):
        items = multi()
    elif isinstance(headers, Mapping):
        items = headers.items()
    elif isinstance(headers, list | tuple | Set | ItemsView):  # urllib3's view of items is a set
        items = headers
    else:
        items = _items(headers)
    for pair in items:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            continue
        name, value = _text(pair[0]), pair[1]
        if name is None:
            continue
        for one in value if isinstance(value, list | tuple) else (value,):
            text = _text(one)
            if text is not None:
                yield name, text


def _items(headers: object) -> Iterable[Any]:
    """The pairs of what is like a mapping and none, as the `email.message.Message` that `urllib.request` answers with."""
    try:
        return list(headers.items())  # type: ignore[attr-defined]
    except Exception:  # whatever it is, it holds no fields
        return ()


def _text(value: object) -> str | None:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return str(value)
        except ValueError:
            return None
    return None
