"""One pool, live: which accounts take calls, and why and until when the others don't."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.http import Http404
from django.utils import timezone

from quotas.admin.account import named
from quotas.models import Account, Pool
from quotas.runtime.connection import accounts
from quotas.snapshot import resolve

SHOWN = 100


def figures(projects: list[int] | None, pk: int | None) -> dict[str, Any]:
    pool = Pool.objects.filter(pk=pk or 0).first()
    if pool is None:
        raise Http404
    config = resolve.snapshot().pools.get(pool.name)
    states = accounts().states(config.spec) if config is not None else []
    disabled = dict(Account.objects.filter(pool=pool).values_list("pk", "disabled_reason"))
    now, paused = timezone.now(), pool.paused_at is not None
    rows = [
        {
            "pk": state.id,
            "state": state,
            "named": named(state.state, paused=paused),
            "why": (disabled.get(int(state.id), "") or state.why) if state.state == "disabled" else state.why,
            "until": now + timedelta(seconds=state.until) if state.until else None,
            "health": round(100 * max(0.0, min(1.0, state.health))),
        }
        for state in states
    ]
    able = [state for state in states if state.state in ("available", "paused")]
    return {
        "pool": pool,
        "rows": rows[:SHOWN],
        "more": max(0, len(rows) - SHOWN),
        "total": len(rows),
        "able": 0 if paused else len(able),
        "in_flight": sum(state.in_flight for state in states),
    }
