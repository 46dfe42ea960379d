"""Makes public ids: opaque, unguessable, and increasing with time, so that an index appends them."""

from __future__ import annotations

import os
import time

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
LENGTH = 26


def new_id() -> str:
    """26 characters of Crockford's base 32: 48 bits of milliseconds, 80 random ones (the layout of a ULID)."""
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
    return "".join([_PAIRS[value >> shift & 1023] for shift in _SHIFTS])


_PAIRS = [first + second for first in ALPHABET for second in ALPHABET]
"""Ten bits as two letters: a bulk makes thousands of ids."""
_SHIFTS = range(10 * (LENGTH // 2 - 1), -1, -10)
