"""Unguessable ids, in bulk: one read of the kernel's random source serves many of them."""

from __future__ import annotations

import os
from base64 import urlsafe_b64encode
from collections import deque

BYTES = 15
"""Of randomness in an id: 120 bits, 20 characters without padding."""
LENGTH = BYTES * 4 // 3
AT_ONCE = 64
_ready: deque[str] = deque()


def random_id() -> str:
    """An id that no other call of any process gets. Safe under threads and forks."""
    try:
        return _ready.popleft()
    except IndexError:
        text = urlsafe_b64encode(os.urandom(BYTES * AT_ONCE)).decode()
        first, *others = [text[at : at + LENGTH] for at in range(0, len(text), LENGTH)]
        _ready.extend(others)
        return first


os.register_at_fork(after_in_child=_ready.clear)
