"""Pools and accounts as the API shows them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.db.models import QuerySet

from quotas import clock
from quotas.engine.accounts.view import Explanation
from quotas.engine.types import AccountState
from quotas.errors import LimiterUnavailable, UnknownPool
from quotas.models import Account, Pool
from quotas.rest import decisions
from quotas.rest.caller import Caller
from quotas.rest.problems import NotFound
from quotas.runtime.connection import accounts
from quotas.services import last_responses
from quotas.snapshot import resolve
from quotas.times import from_unix, rfc3339


def visible_pools(caller: Caller) -> QuerySet[Pool]:
    """The pools that the caller's project may use; all of them for the platform."""
    rows = Pool.objects.all()
    if caller.is_platform:
        return rows
    theirs = [pk for pk, slugs in rows.values_list("pk", "projects") if slugs is None or caller.project_slug in slugs]
    return rows.filter(pk__in=theirs)


def shown_explanation(pool: str, found: Explanation) -> dict[str, Any]:
    """What `acquire` would answer, with each account of the pool and of its fallbacks in the order they are asked."""
    admission = found.admission
    status = 200 if admission else 422 if admission.impossible else 503 if admission.disabled else 429
    return {
        "pool": pool,
        "status": status,
        "chosen": admission.account,
        "chosen_pool": admission.pool if admission else None,
        "retry_after": admission.retry_after if status in (200, 429) else None,
        "accounts": [
            {
                "id": view.id,
                "name": view.name,
                "pool": one.pool,
                "available": view.available,
                "chosen": view.chosen,
                "why": "would be chosen" if view.chosen else view.reason or "another one comes first",
                "retry_after": view.wait,
                "until": _until(view.wait) if view.wait else None,
                "health": round(view.health, 4),
            }
            for one in found.pools
            for view in one.accounts
        ],
    }


def shown_account(row: Account, state: AccountState | None, caller: Caller) -> dict[str, Any]:
    """An account as the contract has it; never its credential, and to a project no texts of others' failures."""
    live = state or AccountState(str(row.pk), row.name)
    why = (row.disabled_reason or live.why) if live.state == "disabled" else live.why
    return {
        "id": str(row.pk),
        "name": row.name,
        "pool": row.pool.name,
        "state": live.state,
        "until": _until(live.until),
        "why": why,
        "health": round(live.health, 4),
        "successes": live.successes,
        "errors": dict(live.errors),
        "skips": dict(live.skips),
        "in_flight": live.in_flight,
        "concurrency": live.concurrency,
        "learned": dict(live.learned),
        "models": {name: _until(seconds) for name, seconds in live.models.items()},
        "latency": live.latency,
        "last_used": _unix(live.last_used),
        "last_error": live.last_error if caller.is_platform else "",
        "last_error_at": _unix(live.last_error_at),
    }


def shown_pool(row: Pool, caller: Caller) -> dict[str, Any]:
    states = states_of(row.name)
    rows = list(row.accounts.select_related("pool").defer("credential").order_by("pk"))
    shown = [shown_account(account, states.get(str(account.pk)), caller) for account in rows]
    available = sum(account["state"] in ("available", "half_open") for account in shown)
    usable = any(account["state"] != "disabled" for account in shown)
    state = "paused" if row.paused_at else "available" if available else "limited" if usable else "disabled"
    return {
        "name": row.name,
        "provider": row.provider.name,
        "dialect": row.provider.dialect,
        "strategy": row.strategy,
        "state": state,
        "why": row.paused_reason if row.paused_at else "",
        "available": available,
        "fallback": [name for name in row.fallback if _is_theirs(name, caller)],
        **({"projects": row.projects} if caller.is_platform else {}),
        "accounts": shown,
    }


def live(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except LimiterUnavailable as error:
        raise decisions.refusal(error) from None
    except UnknownPool:
        raise NotFound("There is no such pool.", "unknown-pool") from None


def states_of(pool: str) -> dict[str, AccountState]:
    config = resolve.snapshot().pools.get(pool)
    return {} if config is None else {state.id: state for state in accounts().states(config.spec)}


def _is_theirs(pool: str, caller: Caller) -> bool:
    config = resolve.snapshot().pools.get(pool)
    return caller.is_platform or (config is not None and config.is_open_to(caller.project_slug))


def last_response(account_id: str) -> dict[str, Any] | None:
    last = last_responses.of(account_id)
    if last is None:
        return None
    return {"at": rfc3339(last.at), "status": last.status, "outcome": last.outcome, "headers": dict(last.headers)}


def no_pool(name: str) -> NotFound:
    return NotFound(f"There is no pool {name[:80]!r}.", "unknown-pool")


def _until(seconds: float | None) -> str | None:
    return None if seconds is None else rfc3339(clock.now() + timedelta(seconds=seconds))


def _unix(moment: float | None) -> str | None:
    return None if moment is None else rfc3339(from_unix(moment))
