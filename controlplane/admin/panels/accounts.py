"""The upstream accounts, pool by pool."""

from __future__ import annotations

from typing import Any

from django.utils import timezone

from quotas.admin.account_state import named
from quotas.models import Account, Pool

SHOWN = 40


def figures(projects: list[int] | None, pk: int | None) -> dict[str, Any]:
    now = timezone.now()
    pools: dict[int, dict[str, Any]] = {
        pool.pk: {"pool": pool, "accounts": [], "able": 0, "holding": 0, "more": 0}
        for pool in Pool.objects.order_by("name")
    }
    columns = ("pk", "pool_id", "name", "state", "until", "why", "health", "enabled", "disabled_reason")
    for account in Account.objects.order_by("pool_id", "pk").values(*columns):
        row = pools[account["pool_id"]]
        state = account["state"] if account["enabled"] else "disabled"
        left = (account["until"] - now).total_seconds() if account["until"] else 0
        paused = row["pool"].paused_at is not None
        holding = state == "paused" and not paused
        row["able"] += not paused and (state == "available" or holding)
        row["holding"] += holding
        if len(row["accounts"]) >= SHOWN:
            row["more"] += 1
            continue
        row["accounts"].append(
            {
                "pk": account["pk"],
                "name": account["name"],
                "state": state,
                "named": named(state, paused=paused),
                "why": account["why"] or account["disabled_reason"],
                "left": round(left) if left > 0 else None,
                "health": round(100 * max(0.0, min(1.0, account["health"]))),
            }
        )
    return {"pools": list(pools.values())}
