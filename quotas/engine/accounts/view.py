"""The state of accounts, as such and for one call."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from quotas.engine.account_state import AccountState
from quotas.engine.accounts.admission import Prepared
from quotas.engine.accounts.admission_reply import POOL
from quotas.engine.accounts.packed_pool import AccountKeys
from quotas.engine.learned import AccountQuota
from quotas.engine.types import Admission, PoolSpec

_VIEW = struct.Struct("<Bdd")


@dataclass(frozen=True, slots=True)
class AccountView:
    """One account in the light of one call: whether it could take it, and if not, why and for how long (seconds)."""

    id: str
    name: str
    available: bool
    chosen: bool
    reason: str
    wait: float | None
    """Seconds; 0 when it is available, None when waiting does not help."""
    health: float


@dataclass(frozen=True, slots=True)
class PoolView:
    """The accounts of one pool in the light of one call."""

    pool: str
    accounts: list[AccountView]


@dataclass(frozen=True, slots=True)
class Explanation:
    """What an admission would answer now, and why each account of the pool and of its fallbacks would or would not be chosen."""

    admission: Admission
    """As `admit` would answer; it has charged nothing, and has no lease."""
    pools: list[PoolView]


def views_of(prepared: Prepared, reply: list[Any]) -> list[AccountView]:
    """What the script said of each account that was offered."""
    _, chosen, _, _ = POOL.unpack_from(reply[1])
    rows = _VIEW.iter_unpack(memoryview(reply[1])[POOL.size :])
    return [
        AccountView(
            id=one.account.id,
            name=one.account.name,
            available=available == 1,
            chosen=number == chosen,
            reason=reason.decode(),
            wait=None if wait < 0 else wait / 1e6,
            health=health,
        )
        for number, (one, (available, wait, health), reason) in enumerate(
            zip(prepared.offered, rows, reply[2:], strict=True)
        )
    ]


def state_of(
    pool: PoolSpec,
    one: AccountKeys,
    found: dict[str, Any],
    view: AccountView,
    statistics: dict[bytes, bytes],
    moment: float,
) -> AccountState:
    """What the script said of one account, in words and seconds."""
    suffix = one.state.rpartition(b":")[2]
    errors: dict[str, int] = {}
    skips: dict[str, int] = {}
    for field, count in statistics.items():
        kind, _, rest = field.partition(b":")
        owner, _, category = rest.partition(b":")
        if owner == suffix and category:
            (errors if kind == b"e" else skips)[category.decode()] = int(count)
    name, until, why = _named(pool, found, view)
    used, error_at = found.get("used"), found.get("error_at")
    return AccountState(
        id=one.account.id,
        name=one.account.name,
        state=name,  # type: ignore[arg-type]
        until=until,
        why=why,
        health=found["health"],
        successes=found["successes"],
        errors=errors,
        skips=skips,
        in_flight=found["busy"],
        concurrency=found.get("most"),
        learned={unit: AccountQuota.of(row) for unit, row in (found["learned"] or {}).items()},
        models=found["models"] or {},
        latency=found.get("latency"),
        last_used=None if used is None else used / 1e6,
        last_error=found.get("error") or "",
        last_error_at=None if error_at is None else error_at / 1e6,
    )


def _named(pool: PoolSpec, found: dict[str, Any], view: AccountView) -> tuple[str, float | None, str]:
    """State, seconds until it ends, and why."""
    reason, left = found.get("reason"), found.get("left")
    if reason == "disabled":
        return "disabled", None, found.get("disabled") or "configuration"
    if reason == "breaker_open":
        return "open", left, found.get("opened") or "too many failures"
    if found.get("half_open") and reason != "cooldown":
        return "half_open", left, "waits for a probe" if reason is None else "a probe is out"
    if reason == "cooldown":
        return "cooling_down", left, found.get("why") or "its pool was refused as a whole"
    if pool.paused:
        return "paused", None, "its pool is paused"
    if view.reason == "paused":
        return "paused", view.wait, f"{pool.pause_at:.0%} of its quota is used: {pool.pause} priorities wait"
    return "available", None, ""
