"""What operators do to pools and accounts, each with who and why in the audit trail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db import transaction

from quotas import clock, events
from quotas.audit import recorded
from quotas.engine.account_state import AccountState
from quotas.engine.errors import LimiterUnavailable
from quotas.engine.types import PoolSpec
from quotas.models import Account, Pool
from quotas.runtime.connection import accounts
from quotas.services import health
from quotas.services.accounts import facts, state_of
from quotas.snapshot import resolve


def clear_cooldown(account: Account, *, actor: str, reason: str) -> None:
    """End the account's cooldown, and that of its pool as a whole."""

    def act(spec: PoolSpec) -> None:
        accounts().clear_cooldown(str(account.pk))
        accounts().clear_pool_cooldown(spec)

    _act_in_redis(account, "account.clear-cooldown", actor, reason, act)


def trip(account: Account, *, actor: str, reason: str) -> None:
    """Open the account's breaker for as long as its pool says."""
    _act_in_redis(
        account,
        "account.trip",
        actor,
        reason,
        lambda spec: accounts().trip(str(account.pk), spec.breaker.open_for, reason),
    )


def close(account: Account, *, actor: str, reason: str) -> None:
    """Close the account's breaker."""
    _act_in_redis(account, "account.close", actor, reason, lambda spec: accounts().close(str(account.pk)))


def disable(account: Account, *, actor: str, reason: str) -> None:
    """Take the account out until it is enabled: SQL first, so that no loss of Redis brings it back."""
    _set_enabled(account, False, "account.disable", actor, reason)


def enable(account: Account, *, actor: str, reason: str) -> None:
    """Use the account again, whether a person or the engine had disabled it."""
    _set_enabled(account, True, "account.enable", actor, reason)


def enable_after_config_change(account_id: int) -> None:
    """The configuration or a form has enabled an account that was disabled: it is used again. Call it after the commit."""
    resolve.clear()
    account = Account.objects.select_related("pool").filter(pk=account_id).first()
    if account is None:
        return
    spec = resolve.pool_spec(account.pool.name)
    try:
        before = _facts(spec, account)
        accounts().enable(str(account_id))
        health.persist(spec)
        _changed(account, before, _facts(spec, account), "enabled by the configuration")
    except LimiterUnavailable as error:
        events.emit(events.AccountActionIncomplete(str(account_id), "enable it by hand", str(error)))


def pause_pool(pool: Pool, *, actor: str, reason: str) -> None:
    """Acquire none of the pool's accounts from now on; calls in flight continue."""
    _pause(pool, True, "pool.pause", actor, reason)


def resume_pool(pool: Pool, *, actor: str, reason: str) -> None:
    _pause(pool, False, "pool.resume", actor, reason)


def _act_in_redis(account: Account, verb: str, actor: str, reason: str, act: Callable[[PoolSpec], Any]) -> None:
    spec = resolve.pool_spec(account.pool.name)
    with recorded(actor, verb, _target(account), reason) as draft:
        draft.before = _facts(spec, account)
        act(spec)
        health.persist(spec)
        draft.after = _facts(spec, account)
    _changed(account, draft.before, draft.after, reason)


def _set_enabled(account: Account, enabled: bool, verb: str, actor: str, reason: str) -> None:
    spec = resolve.pool_spec(account.pool.name)
    before = _facts(spec, account)
    with transaction.atomic():
        account.enabled = enabled
        account.disabled_reason = "" if enabled else reason
        account.save(update_fields=["enabled", "disabled_reason", "updated_at"])
        after = {"state": "available" if enabled else "disabled", "why": "" if enabled else reason}
        events.emit(events.OperatorActed(actor, verb, _target(account), before, after, reason))
    resolve.clear()
    if enabled:
        accounts().enable(str(account.pk))
    else:
        accounts().disable(str(account.pk), reason or "operator")
    health.persist(resolve.pool_spec(account.pool.name))
    _changed(account, before, after, reason)


def _pause(pool: Pool, paused: bool, verb: str, actor: str, reason: str) -> None:
    with transaction.atomic():
        before = {"paused": pool.paused_at is not None, "reason": pool.paused_reason}
        pool.paused_at = (pool.paused_at or clock.now()) if paused else None
        pool.paused_reason = reason if paused else ""
        pool.save(update_fields=["paused_at", "paused_reason", "updated_at"])
        after = {"paused": paused, "reason": pool.paused_reason}
        events.emit(events.OperatorActed(actor, verb, f"pool:{pool.name}", before, after, reason))
    resolve.clear()


def _target(account: Account) -> str:
    return f"account:{account.pool.name}/{account.name}"


def _facts(spec: PoolSpec, account: Account) -> dict[str, Any]:
    return facts(state_of(spec, str(account.pk)) or AccountState(str(account.pk), account.name))


def _changed(account: Account, before: Any, after: Any, why: str) -> None:
    if before and after and before["state"] != after["state"]:
        events.emit(
            events.AccountChanged(
                account.pool.name, account.name, before["state"], after["state"], why, after.get("until")
            )
        )
