"""Digests of request bodies, which distinguish a repeated request from another one with the same idempotency key."""

from __future__ import annotations

import hashlib
import json
from typing import Any

_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode


def fingerprint(body: Any) -> str:
    """A digest of a JSON value: equal for values that differ only in the order of members or in white space."""
    text = _encode(body)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
