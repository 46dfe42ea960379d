"""How an outcome travels to the script that settles a lease, and what its reply says."""

from __future__ import annotations

import struct
from hashlib import blake2b
from typing import Any

from quotas.engine.costs import is_count
from quotas.engine.learned import LearnedQuota
from quotas.engine.redis.scripts import bulk
from quotas.engine.types import CallOutcome, Settled

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
    learned = [(unit, _quota(quota)) for unit, quota in outcome.learned.items() if unit and "\n" not in unit]
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


def _quota(quota: LearnedQuota) -> bytes:
    """A count that is none, such as a negative one, is not known."""
    return _LEARNED.pack(
        quota.limit if is_count(quota.limit) else -1,
        quota.remaining if is_count(quota.remaining) else -1,
        _microseconds(quota.reset_after),
        _microseconds(quota.window),
        -1,
        quota.kind == "bucket",
    )


def _microseconds(seconds: float | None) -> float:
    if seconds is None:
        return -1.0
    return float(round(min(seconds, _LONGEST) * 1e6)) if seconds >= 0 else -1.0


def _text(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def settled(lease: str, outcome: CallOutcome, reply: list[Any]) -> Settled:
    """What settling the lease did."""
    repeated, category, cooldown, transition, before, after, account, errors, use, probe = reply
    return Settled(
        lease=lease,
        outcome=category.decode(),
        cooldown=float(cooldown) / 1e6,
        learned={} if repeated else outcome.learned,
        repeated=bool(repeated),
        transition=transition.decode(),
        account_id=account.decode(),
        concurrency=(before, after) if before or after else None,
        concurrency_why=_why_moved(after > before, errors / 1000, use / 1000) if before or after else "",
        probe=probe == 1,
    )


def _why_moved(up: bool, errors: float, use: float) -> str:
    """Why concurrency went up or down, in words."""
    if up:
        return f"{1 - errors:.0%} of the calls succeeded and {use:.0%} of the quota is used"
    reasons = [f"{errors:.0%} of the calls failed"] if errors > 0.2 else []
    if use > 0.9:
        reasons.append(f"{use:.0%} of the quota is used")
    return " and ".join(reasons)
