"""For tests of code that uses quotas: capture events, and check limits without a server.

from quotas.testing import capture_events, fresh_configuration, memory_limiter, throwaway_prefix
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from quotas import events
from quotas.engine.limits.reference import ReferenceLimiter
from quotas.snapshot import resolve

E = TypeVar("E", bound=events.Event)


@contextmanager
def capture_events(*kinds: type[E]) -> Iterator[list[E]]:
    """The events of `kinds` (all, where none is given) that this process emits inside the block, in a list that grows.

    with capture_events(AccountChanged) as changes:
        pools.pool("llm").acquire()
    assert changes[0].after == "open"
    """
    captured: list[E] = []

    def capture(event: E) -> None:
        captured.append(event)

    wanted: tuple[type[events.Event], ...] = kinds or (events.Event,)
    for kind in wanted:
        events.subscribe(kind, capture)
    try:
        yield captured
    finally:
        for kind in wanted:
            events.unsubscribe(kind, capture)


def memory_limiter(clock: Callable[[], int] | None = None) -> ReferenceLimiter:
    """A limiter in this process's memory, with the contract of the real one; `clock` returns microseconds since the
    epoch.

        limiter = memory_limiter(clock=lambda: 0)
        limiter.check([Limit("1", "mails", "user", "ada", "fixed_window", 10, window=60.0)])
    """
    return ReferenceLimiter(clock=clock)


def throwaway_prefix() -> str:
    """A key prefix that no other test uses, for a limiter on a shared server: `Limiter(transport, Keys(prefix))`."""
    return f"test-{secrets.token_hex(6)}"


def fresh_configuration() -> None:
    """Clear the configuration from memory, so that the next use reads SQL. For a database that was emptied or replaced,
    whose versions begin anew."""
    resolve.clear()
