"""Accounts' health in SQL: a copy of Redis's state, written every few seconds, and restored if Redis loses it.

A mark in Redis says that its memory is the one that was filled from SQL. Where the mark is gone (FLUSHALL, a new
server), SQL's copy is restored first and only then overwritten.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from quotas import clock, events
from quotas.engine.account_state import AccountState
from quotas.engine.types import PoolSpec
from quotas.models import Account
from quotas.runtime.connection import accounts
from quotas.services import rollups
from quotas.snapshot import resolve

MARK_LIFE = 7 * 86400
MAX_TEXT = 500
LOG_EVERY = 300.0
_COLUMNS = (
    "state", "until", "why", "health", "successes", "errors", "learned", "latency", "last_used", "last_error",
    "last_error_at",
)  # fmt: skip
_SAME_TIME = timedelta(seconds=1)
"""`until` is counted from now each time, so that it moves by the answer's travel time."""


def flush() -> int:
    """Write what has changed since the last time. Returns how many accounts. Raises `LimiterUnavailable`."""
    if restore_if_lost():
        return 0
    pools = [config.spec for config in resolve.snapshot().pools.values() if config.spec.accounts]
    found = [(spec, accounts().states(spec)) for spec in pools]
    if not _marked():
        return 0  # the memory was lost while it was read: what was read is nothing to keep
    return sum(_write(spec, states) for spec, states in found)


def persist(spec: PoolSpec) -> None:
    """Write one pool's accounts now, at a transition."""
    _write(spec, accounts().states(spec))


def restore_if_lost() -> bool:
    """Bring back cooldowns, open breakers and disabled accounts where Redis has lost them. True if it had."""
    if _marked():
        return False
    now = clock.now()
    states = [
        AccountState(
            id=str(row.pk),
            name=row.name,
            state=row.state,  # type: ignore[arg-type]
            until=(row.until - now).total_seconds() if row.until else None,
            why=row.why,
            health=row.health,
        )
        for row in Account.objects.all()
        if row.state == "disabled" or (row.until is not None and row.until > now) or row.health < 1
    ]
    changed = accounts().restore(states)
    calendars = rollups.restore_calendars()
    engine = accounts()
    engine.transport.command("SET", engine.keys.key("a", "mark"), b"1", "EX", str(MARK_LIFE))
    if changed or calendars:
        events.emit(events.RedisStateRestored(changed, calendars))
    return True


def _marked() -> bool:
    engine = accounts()
    return bool(engine.transport.command("EXPIRE", engine.keys.key("a", "mark"), str(MARK_LIFE)))


def _write(spec: PoolSpec, states: Iterable[AccountState]) -> int:
    rows = {row.pk: row for row in Account.objects.filter(pool_id=int(spec.id)).defer("credential")}
    changed = []
    for state in states:
        row = rows.get(int(state.id))
        if row is None:
            continue
        values = _values(state)
        if all(_same(getattr(row, name), value) for name, value in values.items()):
            continue
        for name, value in values.items():
            setattr(row, name, value)
        changed.append(row)
    if changed:
        Account.objects.bulk_update(changed, _COLUMNS)
    return len(changed)


def _values(state: AccountState) -> dict[str, Any]:
    until = clock.now() + timedelta(seconds=state.until) if state.until is not None else None
    return {
        "state": state.state,
        "until": until,
        "why": state.why[:MAX_TEXT],
        "health": round(state.health, 2),
        "successes": state.successes,
        "errors": dict(state.errors),
        "learned": {unit: quota.document() for unit, quota in state.learned.items()},
        "latency": state.latency,
        "last_used": _moment(state.last_used),
        "last_error": state.last_error[:MAX_TEXT],
        "last_error_at": _moment(state.last_error_at),
    }


def _moment(unix: float | None) -> datetime | None:
    return None if unix is None else datetime.fromtimestamp(unix, UTC)


def _same(before: Any, after: Any) -> bool:
    if isinstance(before, datetime) and isinstance(after, datetime):
        return abs(before - after) < _SAME_TIME
    return bool(before == after)


class HealthLog:
    """Every five minutes one line about each pool."""

    def __init__(self, every: float = LOG_EVERY) -> None:
        self.every = every
        self._next = time.monotonic() + every

    def run_due(self) -> bool:
        """Log if it is time. Returns whether it was."""
        if time.monotonic() < self._next:
            return False
        self._next = time.monotonic() + self.every
        for config in resolve.snapshot().pools.values():
            states = accounts().states(config.spec)
            counts: dict[str, int] = {}
            for state in states:
                counts[state.state] = counts.get(state.state, 0) + 1
            health = min((state.health for state in states), default=1.0)
            words = ", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "no accounts"
            events.emit(events.PoolHealthMeasured(config.spec.name, words, round(health, 2)))
        return True
