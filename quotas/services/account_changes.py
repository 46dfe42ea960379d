"""Publishes what calls change about accounts: as events, and their health in SQL."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from django.db import DatabaseError

from quotas import events
from quotas.engine.types import AccountSpec, Admission, PoolSpec, Settled
from quotas.runtime.connection import accounts
from quotas.services import health
from quotas.snapshot import resolve
from quotas.snapshot.pools import PoolConfig


def find_account(account_id: str) -> tuple[PoolConfig, AccountSpec] | None:
    for config in resolve.snapshot().pools.values():
        for account in config.spec.accounts:
            if account.id == account_id:
                return config, account
    return None


def publish_settled(settled: Iterable[Settled]) -> None:
    """Emit what settled calls changed about their accounts, and write those accounts' health to SQL at once.

    Most calls change nothing.
    """
    for one in settled:
        if one.repeated or not (one.transition or one.concurrency):
            continue
        found = find_account(one.account_id)
        if found is None:
            continue
        config, account = found
        if one.transition:
            events.emit(_changed(config.spec, account, one))
            health.persist(config.spec)
        if one.concurrency:
            was, now = one.concurrency
            events.emit(events.ConcurrencyChanged(config.spec.name, account.name, was, now, one.concurrency_why))


def publish_admitted(admissions: Iterable[Admission]) -> None:
    """Emit what admissions changed: a circuit breaker half-opens when its first probe is admitted."""
    for one in admissions:
        if not one.half_opened or one.account_id is None:
            continue
        found = find_account(one.account_id)
        if found is not None:
            spec, account = found[0].spec, found[1]
            events.emit(events.AccountChanged(spec.name, account.name, "open", "half_open", "a probe goes out"))
            health.persist(spec)


def _changed(spec: PoolSpec, account: AccountSpec, settled: Settled) -> events.Event:
    states = accounts().states(spec)
    if settled.transition == "pool_limited":
        waits = [state.until for state in states if state.state != "disabled" and state.until is not None]
        return events.PoolLimited(spec.name, account.name, settled.outcome, min(waits, default=None))
    state = next((state for state in states if state.id == account.id), None)
    before = "half_open" if settled.probe else "available"
    after = {"opened": "open", "closed": "available"}.get(settled.transition, settled.transition)
    why = (state.why if state else "") or settled.outcome
    return events.AccountChanged(spec.name, account.name, before, after, why, state.until if state else None)


@contextmanager
def without_sql() -> Iterator[None]:
    """Let a call end while SQL is unavailable: Redis has decided, and the health flusher updates SQL later."""
    try:
        yield
    except DatabaseError as error:
        events.emit(events.ServiceUnavailable("accounts", "writing an account's change", type(error).__name__))
