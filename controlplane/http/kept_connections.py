"""Connections to SQL that a thread keeps from one request to the next.

Django opens a connection to SQLite for each request, since its threads come and go: that takes longer than a submit. To
PostgreSQL it keeps them, and asks each whether it works before the first statement of a request, which is a round trip more.
The threads of a pool stay, so that they keep theirs. A connection is closed when it is old, after an error that broke it, on SQLite
where another file has taken the place of its file, and on PostgreSQL where the server has ended the session.
"""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from django.db import close_old_connections, connections

T = TypeVar("T")
TRUSTED = 1.0
"""Seconds after its last use in which a connection to PostgreSQL is used without a round trip for a check."""


class _Thread(threading.local):
    used_at = float("-inf")


_thread = _Thread()


def with_kept_connections(work: Callable[[], T]) -> T:
    """The result of `work`, in a thread that keeps its connections."""
    close_old_connections()
    if time.monotonic() - _thread.used_at < TRUSTED:
        for connection in connections.all(initialized_only=True):
            if connection.vendor != "postgresql" or not _has_ended(connection.connection):
                connection.health_check_done = True  # type: ignore[attr-defined]
    try:
        return work()
    finally:
        _thread.used_at = time.monotonic()


def _has_ended(session: Any) -> bool:
    """Whether the server has sent anything since the last statement, as it does when it ends a session."""
    if session is None or session.closed:
        return True
    poll = select.poll()
    poll.register(session.fileno(), select.POLLIN)
    return bool(poll.poll(0))
