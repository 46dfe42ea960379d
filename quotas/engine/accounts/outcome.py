"""How an outcome travels to the script that settles a lease."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

from quotas.engine.costs import is_count
from quotas.engine.redis.scripts import bulk
from quotas.engine.types import CallOutcome

_HEAD = struct.Struct("<dddBB")
_LEARNED = struct.Struct("<dddddB")
_SCOPES = {"account": 0, "key": 1, "pool": 2, "model": 3}
_EMPTY = bulk(b"")
_LONGEST = 366 * 86400.0
MAX_RESOURCE = 200
"""Characters of a model's or resource's name that are kept."""


def pack(outcome: CallOutcome, random: float, lease: bytes) -> bytes:
    """ARGV 2 to 10 of settle_lease.lua, as they are sent."""
    head = _HEAD.pack(
        _microseconds(outcome.retry_after),
        _microseconds(outcome.latency),
        random,
        _SCOPES.get(outcome.scope, 0),
        outcome.refuses_account and (2 if outcome.certain else 1),
    )
    if outcome.target or outcome.request:
        head += _mark(outcome.target) + _mark(outcome.request)
    usage = [(unit, used) for unit, used in outcome.usage.items() if is_count(used) and "\n" not in unit and unit]
    learned = [(unit, packed) for unit, quota in outcome.learned.items() if (packed := _quota(unit, quota))]
    belongs = _EMPTY if outcome.resource is None else bulk(_text("." + outcome.resource[:MAX_RESOURCE]))
    if not usage and not learned and not outcome.error:
        return b"%b%b$0\r\n\r\n%b%b%b" % (bulk(head), bulk(_text(outcome.category)), bulk(lease), 4 * _EMPTY, belongs)
    return b"".join(
        (
            bulk(head),
            bulk(_text(outcome.category)),
            bulk(_text(outcome.error)),
            bulk(lease),
            bulk(_text("\n".join([unit for unit, _ in usage]))) if usage else _EMPTY,
            bulk(b"".join([struct.pack("<d", used) for _, used in usage])) if usage else _EMPTY,
            bulk(_text("\n".join([unit for unit, _ in learned]))) if learned else _EMPTY,
            bulk(b"".join([packed for _, packed in learned])) if learned else _EMPTY,
            belongs,
        )
    )


def _mark(text: str) -> bytes:
    """A hash of a text in eight bytes; zeros for an empty one."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest() if text else bytes(8)


def _quota(unit: str, quota: object) -> bytes | None:
    if not isinstance(quota, Mapping) or not unit or "\n" in unit:
        return None
    kind: Any = quota.get("kind")
    limit, remaining = (quota.get(name) for name in ("limit", "remaining"))
    return _LEARNED.pack(
        limit if is_count(limit) else -1,
        remaining if is_count(remaining) else -1,
        _microseconds(quota.get("reset_after")),
        _microseconds(quota.get("window")),
        -1,
        kind == "bucket",
    )


def _microseconds(seconds: object) -> float:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        return -1.0
    return float(round(min(seconds, _LONGEST) * 1e6)) if seconds >= 0 else -1.0


def _text(text: str) -> bytes:
    return text.encode("utf-8", "replace")
