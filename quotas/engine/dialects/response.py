"""A provider's answer as the dialects read it: header fields by lower-case name, the body as text and as JSON."""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterable, Iterator, Set
from typing import Any, Generic, TypeVar, overload

from quotas.engine.dialects import streams, wait_values

T = TypeVar("T")
MAX_BODY = 1_000_000
MAX_TAIL = 65_536
MAX_FIELD = 8192


class computed(Generic[T]):
    """An attribute that is computed at its first use, for objects of one thread: the one of `functools` takes a lock."""

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self._compute = compute
        self._name = compute.__name__

    @overload
    def __get__(self, instance: None, owner: type) -> computed[T]: ...

    @overload
    def __get__(self, instance: object, owner: type) -> T: ...

    def __get__(self, instance: object | None, owner: type) -> computed[T] | T:
        if instance is None:
            return self
        value = instance.__dict__[self._name] = self._compute(instance)
        return value


class Answer:
    """Status, headers and body of one answer. Whatever is in them, reading them never raises.

    `tail`: the end of a body of which `body` is only the beginning.
    """

    def __init__(self, status: int | None, headers: object, body: object, now: float, tail: bytes | str = b"") -> None:
        self.status = status if isinstance(status, int) and not isinstance(status, bool) else 0
        self.now = now
        self._fields: dict[str, list[str]] = {}
        for name, value in _pairs(headers):
            self._fields.setdefault(name.strip(" \t").lower(), []).append(value[:MAX_FIELD])
        self._body = body
        self._tail = tail

    def refused(self, status: int, body: object) -> Answer:
        """This answer as it would be if its refusal came with a status of its own; `parts` stay those of the whole."""
        other = Answer(status, None, body, self.now)
        other._fields = self._fields
        other.__dict__["parts"] = self.parts
        return other

    def has_any(self, beginning: str) -> bool:
        """Whether there is a field whose name, in lower case, begins so."""
        return any(name.startswith(beginning) for name in self._fields)

    def all(self, name: str) -> list[str]:
        """Every value of a field, in order."""
        return self._fields.get(name, [])

    def get(self, name: str) -> str | None:
        """The value of a field; None where there is none. Of a field that was sent twice with one value, that value,
        also where a proxy or client has merged the two with a comma."""
        values = self._fields.get(name)
        return _unrepeated(values[0].strip(" \t")) if values else None

    def names(self) -> Iterable[str]:
        """The names of all fields, in lower case."""
        return self._fields.keys()

    @computed
    def clock(self) -> float:
        """The provider's own Unix time when it answered, as well as can be known."""
        return wait_values.reference_clock(self.get("date"), "age" in self._fields, self.now)

    @computed
    def text(self) -> str:
        """The body as text, cut to a million characters."""
        return _decoded(self._body, slice(MAX_BODY))

    @computed
    def tail(self) -> str:
        """The end of a body that is longer than `text`; else empty."""
        if self._tail:
            return _decoded(self._tail, slice(-MAX_TAIL, None))
        long = isinstance(self._body, bytes | bytearray | memoryview | str) and len(self._body) > MAX_BODY
        return _decoded(self._body, slice(-MAX_TAIL, None)) if long else ""

    @computed
    def json(self) -> Any:
        """The body parsed; None where it is no JSON. A JSON text inside a JSON string is parsed again, once."""
        if isinstance(self._body, dict | list):
            return self._body
        parsed = streams.parse(self.text)
        return streams.parse(parsed) if isinstance(parsed, str) else parsed

    @computed
    def parts(self) -> list[Any]:
        """The JSON values that the body consists of: the document, the items of a list, or the events of a stream."""
        document = self.json
        if document is not None:
            return document if isinstance(document, list) else [document]
        if not self.text and not self.tail:
            return []
        if streams.is_stream(self.text, self.get("content-type") or ""):
            return streams.events(f"{self.text}\n\n{self.tail}" if self.tail else self.text)
        return streams.lines(self.text) if not self.tail else streams.usage_at_the_end(self.tail)

    def at(self, *path: str | int) -> Any:
        """The member of the body at `path`; None where there is none."""
        return dig(self.json, *path)

    def may_hold(self, *words: str) -> bool:
        """Whether one of the words is anywhere in the body; True where the body was given parsed."""
        if isinstance(self._body, dict | list):
            return True
        text, tail = self.text, self.tail
        return any(word in text or word in tail for word in words)

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


def _decoded(body: object, part: slice) -> str:
    if isinstance(body, bytes | bytearray | memoryview):
        return bytes(body[part]).decode("utf-8", "replace")
    return body[part] if isinstance(body, str) else ""


def _unrepeated(value: str) -> str:
    """`a` for `a, a`; any other value as it is."""
    if "," not in value:
        return value
    pieces = [piece.strip(" \t") for piece in value.split(",")]
    for size in range(1, len(pieces) // 2 + 1):
        if len(pieces) % size == 0 and pieces == pieces[:size] * (len(pieces) // size):
            return ", ".join(pieces[:size])
    return value


def _pairs(headers: object) -> Iterator[tuple[str, str]]:
    items: Iterable[object]
    if isinstance(headers, list | tuple | Set | ItemsView):  # urllib3's view of items is a set
        items = headers
    else:
        # A mapping, or what only resembles one, as the messages of `http.client` and `urllib` do. Whatever a client's
        # own class raises there, nothing is known of its fields.
        listed = getattr(headers, "multi_items", None) or getattr(headers, "items", None)
        try:
            items = list(listed()) if callable(listed) else ()
        except Exception:  # noqa: BLE001 - a client's own class may raise anything
            return
    for pair in items:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            continue
        name, value = pair
        if type(name) is str and type(value) is str:  # nearly all
            yield name, value
            continue
        name = _text(name)
        if name is None:
            continue
        for one in value if isinstance(value, list | tuple) else (value,):
            text = _text(one)
            if text is not None:
                yield name, text


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
