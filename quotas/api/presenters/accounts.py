"""Pools and accounts as the API shows them, leases of accounts, and why a pool would choose one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Literal

from django.db.models import QuerySet

from quotas import clock, models
from quotas.engine.account_state import AccountState
from quotas.engine.accounts.view import AccountView, Explanation
from quotas.engine.types import Settled
from quotas.errors import LimiterUnavailable, UnknownPool
from quotas.rest import decisions
from quotas.rest.caller import Caller
from quotas.rest.problems import NotFound
from quotas.runtime.connection import accounts
from quotas.services import last_responses
from quotas.shapes import Page, Shape, field
from quotas.snapshot import resolve
from quotas.times import from_unix


class AcquiredAccount(Shape):
    lease: str
    account: str = field(help="Its name.")
    account_id: str
    pool: str = field(help="The pool of the account: a fallback if the first pool had none.")
    base_url: str
    expires_in: float = field(help="Seconds.")


class StatedQuota(Shape):
    limit: int | None
    remaining: int | None
    reset_after: float | None = field(help="Seconds.")
    window: float = field(required=False, help="Seconds, where it is known.")
    kind: Literal["bucket", "window"] = field(help="Comes back steadily, or when the window ends.")


class LeaseEnd(Shape):
    lease: str
    outcome: str = field(help="`ok` or a category.")
    cooldown: float = field(help="Seconds.")
    learned: dict[str, StatedQuota] = field(help="Quota read from the answer's header fields.")


class Account(Shape):
    id: str
    name: str
    pool: str = field("pool.name")
    state: Literal["available", "cooling_down", "open", "half_open", "disabled", "paused"]
    until: datetime | None
    why: str
    health: float = field(digits=4, help="0 to 1.")
    successes: int
    errors: dict[str, int] = field(help="By category.")
    skips: dict[str, int] = field(help="By reason.")
    in_flight: int
    concurrency: int | None
    learned: dict[str, Any] = field(
        help="Quota by unit as the provider states it; in a member `models` the same by model or resource."
    )
    models: dict[str, datetime] = field(help="Models that were refused, each until when.")
    latency: float | None
    last_used: datetime | None
    last_error: str
    last_error_at: datetime | None


class LastAnswer(Shape):
    at: datetime
    status: int
    outcome: str = field(help="`ok` or a category.")
    headers: dict[str, str] = field(help="Those about limits, redacted.")


class AccountDetail(Account):
    last_answer: LastAnswer | None


class Accounts(Page):
    results: list[Account]


class Pool(Shape):
    name: str
    provider: str = field("provider.name")
    dialect: str = field("provider.dialect")
    strategy: str
    state: Literal["available", "limited", "paused", "disabled"]
    why: str
    available: int = field(help="Accounts that can be acquired now.")
    fallback: list[str] = field(help="Those that the caller may use.")
    projects: list[str] | None = field(required=False, help="Who may use it; null: all. For platform keys.")
    accounts: list[Account]


class Pools(Page):
    results: list[Pool]


class ExplainedAccount(Shape):
    id: str
    name: str
    pool: str
    available: bool
    chosen: bool
    why: str
    retry_after: float | None = field("wait")
    until: datetime | None
    health: float = field(digits=4)


class PoolExplanation(Shape):
    pool: str
    status: int = field(help="As `acquire` would answer: 200, 422, 429 or 503.")
    chosen: str | None
    chosen_pool: str | None = field(help="A fallback's where the pool itself has no account.")
    retry_after: float | None
    accounts: list[ExplainedAccount]


def visible_pools(caller: Caller) -> QuerySet[models.Pool]:
    """The pools that the caller's project may use; all of them for the platform."""
    rows = models.Pool.objects.all()
    if caller.is_platform:
        return rows
    theirs = [pk for pk, slugs in rows.values_list("pk", "projects") if slugs is None or caller.project_slug in slugs]
    return rows.filter(pk__in=theirs)


def shown_explanation(pool: str, found: Explanation) -> dict[str, Any]:
    """What `acquire` would answer, with each account of the pool and of its fallbacks in the order in which they are tried."""
    admission = found.admission
    status = 200 if admission else 422 if admission.impossible else 503 if admission.disabled else 429
    return PoolExplanation.of(
        pool=pool,
        status=status,
        chosen=admission.account,
        chosen_pool=admission.pool if admission else None,
        retry_after=admission.retry_after if status in (200, 429) else None,
        accounts=[_explained(one.pool, view) for one in found.pools for view in one.accounts],
    )


def lease_end(settled: Settled) -> dict[str, Any]:
    learned = {
        unit: StatedQuota.of(quota) if quota.window is None else StatedQuota.of(quota, window=quota.window)
        for unit, quota in settled.learned.items()
    }
    return LeaseEnd.of(settled, learned=learned)


def _explained(pool: str, view: AccountView) -> dict[str, Any]:
    why = "would be chosen" if view.chosen else view.reason or "another one comes first"
    return ExplainedAccount.of(view, pool=pool, why=why, until=_until(view.wait) if view.wait else None)


def shown_account(row: models.Account, state: AccountState | None, caller: Caller) -> dict[str, Any]:
    """An account as the contract has it; never its credential, and to a project no texts of others' failures."""
    return Account.of(row, **_live_members(row, state, caller))


def account_detail(row: models.Account, state: AccountState | None, caller: Caller) -> dict[str, Any]:
    """The account with its last answer, which only the platform sees: it may be the answer to any project's call."""
    last = last_responses.of(str(row.pk)) if caller.is_platform else None
    return AccountDetail.of(row, **_live_members(row, state, caller), last_answer=last)


def _live_members(row: models.Account, state: AccountState | None, caller: Caller) -> dict[str, Any]:
    """The members that are no columns."""
    live = state or AccountState(str(row.pk), row.name)
    return {
        "id": str(row.pk),
        "state": live.state,
        "until": _until(live.until),
        "why": (row.disabled_reason or live.why) if live.state == "disabled" else live.why,
        "health": live.health,
        "successes": live.successes,
        "errors": live.errors,
        "skips": live.skips,
        "in_flight": live.in_flight,
        "concurrency": live.concurrency,
        "learned": {unit: quota.document() for unit, quota in live.learned.items()},
        "models": {name: _until(seconds) for name, seconds in live.models.items()},
        "latency": live.latency,
        "last_used": _unix(live.last_used),
        "last_error": live.last_error if caller.is_platform else "",
        "last_error_at": _unix(live.last_error_at),
    }


def shown_pool(row: models.Pool, caller: Caller) -> dict[str, Any]:
    states = states_of(row.name)
    rows = list(row.accounts.select_related("pool").defer("credential").order_by("pk"))
    shown = [shown_account(account, states.get(str(account.pk)), caller) for account in rows]
    available = sum(account["state"] in ("available", "half_open") for account in shown)
    usable = any(account["state"] != "disabled" for account in shown)
    return Pool.of(
        row,
        state="paused" if row.paused_at else "available" if available else "limited" if usable else "disabled",
        why=row.paused_reason if row.paused_at else "",
        available=available,
        fallback=[name for name in row.fallback if _is_theirs(name, caller)],
        **({"projects": row.projects} if caller.is_platform else {}),
        accounts=shown,
    )


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


def no_pool(name: str) -> NotFound:
    return NotFound(f"There is no pool {name[:80]!r}.", "unknown-pool")


def _until(seconds: float | None) -> datetime | None:
    return None if seconds is None else clock.now() + timedelta(seconds=seconds)


def _unix(moment: float | None) -> datetime | None:
    return None if moment is None else from_unix(moment)
