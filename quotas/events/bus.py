"""The bus: subscribers are called in the emitter's thread and transaction, in the order of subscription."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events. `project` is the slug of the project that may see it; empty: the platform only."""

    project: str = field(default="", kw_only=True)


Subscriber = Callable[[Any], None]
_subscribers: list[tuple[type[Event], Subscriber]] = []
_by_type: dict[type[Event], tuple[Subscriber, ...]] = {}
"""Who takes events of a type, worked out at the first of them."""
_finishers: list[Callable[[], object]] = []


def subscribe(kind: type[Event], subscriber: Subscriber) -> None:
    """Call `subscriber` with each event of `kind` or a kind of it; the same pair is kept once."""
    if (kind, subscriber) not in _subscribers:
        _subscribers.append((kind, subscriber))
        _by_type.clear()


def unsubscribe(kind: type[Event], subscriber: Subscriber) -> None:
    """End a subscription. Raises ValueError where there is none."""
    _subscribers.remove((kind, subscriber))
    _by_type.clear()


def emit(event: Event) -> None:
    """Hand `event` to all who subscribed. What a subscriber raises goes to the emitter."""
    found = _by_type.get(type(event))
    if found is None:
        found = tuple(subscriber for kind, subscriber in _subscribers if isinstance(event, kind))
        _by_type[type(event)] = found
    for subscriber in found:
        subscriber(event)


def emit_all(events: Iterable[Event]) -> None:
    """`emit` each of them, in order."""
    for event in events:
        emit(event)


def before_exit(finish: Callable[[], object]) -> None:
    """Have `finish` called by `finish_all`: for subscribers that collect events and hand them on later."""
    if finish not in _finishers:
        _finishers.append(finish)


def finish_all() -> None:
    """Let the subscribers hand on what they have collected. For processes that end without an interpreter's exit."""
    for finish in _finishers:
        finish()
