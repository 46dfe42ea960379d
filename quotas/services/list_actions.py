"""Actions on many policies, accounts, pools and keys."""

from __future__ import annotations

from typing import Any

from django.db.models import Q

from quotas.models import (
    Account,
    ApiKey,
    CostRule,
    Network,
    Override,
    Policy,
    Pool,
    Project,
    Provider,
    Tier,
)
from quotas.permissions import ACT_ON_ACCOUNTS, ACT_ON_LIMITS
from quotas.services import account_actions, deletion, row_actions, switches, usage
from quotas.services.row_actions import Refused, RowAction, has

DELETED = (Account, CostRule, Network, Override, Policy, Pool, Project, Provider, Tier)


def _reset(policy: Policy, *, actor: str, reason: str) -> None:
    usage.reset(usage.Selection(policy=policy.name), actor=actor, reason=reason)


def _revoke(key: ApiKey, *, actor: str, reason: str) -> None:
    from quotas.services import api_keys  # with all of REST, which most processes never need

    if not api_keys.revoke(key, actor=actor, reason=reason):
        raise Refused("already revoked")


def _account(name: str, title: str, act: Any, **more: Any) -> RowAction:
    return RowAction(model=Account, name=name, title=title, act=act, allowed=has(ACT_ON_ACCOUNTS), **more)


def _pool(name: str, title: str, act: Any, **more: Any) -> RowAction:
    return RowAction(model=Pool, name=name, title=title, act=act, allowed=has(ACT_ON_ACCOUNTS), **more)


def connect() -> None:
    row_actions.register(
        RowAction(model=Policy, name="reset", title="Reset counters", act=_reset, allowed=has(ACT_ON_LIMITS)),
        RowAction(
            model=ApiKey, name="revoke", title="Revoke keys", act=_revoke, allowed=has("quotas.delete_apikey"),
            only=Q(revoked_at=None), others="already revoked",
        ),
        _account("clear_cooldown", "Clear cooldowns", account_actions.clear_cooldown),
        _account("close", "Close breakers", account_actions.close),
        _account(
            "enable", "Enable accounts", account_actions.enable,
            only=Q(enabled=False) | Q(state="disabled"), others="already enabled",
        ),
        _account(
            "disable", "Disable accounts", account_actions.disable,
            only=Q(enabled=True), others="already disabled",
        ),
        _pool(
            "pause", "Pause pools", account_actions.pause_pool,
            only=Q(paused_at=None), others="already paused",
        ),
        _pool(
            "resume", "Resume pools", account_actions.resume_pool,
            only=Q(paused_at__isnull=False), others="not paused",
        ),
        *switches.actions(Policy),
        *(deletion.action(model) for model in DELETED),
    )  # fmt: skip
