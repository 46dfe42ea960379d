"""When the accounts of a pool are used up, if the pool's jobs continue to use them as they did in the last minutes."""

from __future__ import annotations

import math
from datetime import datetime, timedelta

from queues import config
from queues.models import Job
from queues.selectors.jobs import RECENT_SPAN
from queues.selectors.pool_uses import PoolUse, read_pool_uses
from queues.selectors.what_if import NO_CHANGE, Change
from queues.simulation.accounts import Need, SimulatedPool
from queues.simulation.counters import LENGTHS
from queues.states import Stage
from quotas.engine.limits.capacity import capacity_of
from quotas.engine.types import Limit
from quotas.services.exhaustion import Exhaustion, Standing, end_of, exhaustion_of
from quotas.snapshot import resolve

RECENT = 2_000
"""Jobs that ended, of which the use is computed at most."""


class PoolStanding:
    """A pool's accounts and its jobs' use of them, read once. Raises `LimiterUnavailable`."""

    def __init__(self, pool: str, now: datetime) -> None:
        spec = resolve.pool_spec(pool)
        self._use: PoolUse = read_pool_uses([spec], now.timestamp())[pool]
        self._rates = _rates(pool, now)
        self._now = now.timestamp()

    def exhaustion(self, change: Change = NO_CHANGE) -> Exhaustion:
        """Now, where no account takes a call; else when the first of the limits of all accounts together is used up."""
        accounts = self._use.accounts(self._now)
        more = change.accounts.get(self._use.spec.name, 0)
        accounts += [self._use.another(self._now) for _ in range(max(more, 0))]
        for account in accounts:
            account.most = None  # calls in flight end by themselves
        usable = [account for account in accounts if account.free_from < math.inf]
        usable = usable[: max(len(usable) + min(more, 0), 0)]
        if self._use.spec.paused or not usable:
            return Exhaustion(self._now, None)
        found = SimulatedPool(self._use.spec, usable).find(self._now, Need(("",), {}, 0))
        if found.account is None:
            return Exhaustion(self._now, self._now + found.wait if found.wait < math.inf else None)
        each = [self._of(limit, len(usable), more) for limit in self._use.limits]
        first = min((one for one in each if one.at is not None), key=lambda one: one.at or 0.0, default=None)
        return first or Exhaustion(None, self._now)

    def _of(self, limit: Limit, accounts: int, more: int) -> Exhaustion:
        used = sum(
            self._use.uses[state.id, limit.id].units
            for state in self._use.states
            if (state.id, limit.id) in self._use.uses and state.state != "disabled"
        )
        window = LENGTHS[limit.period] if limit.algorithm == "calendar" else limit.window
        ends_at = end_of(limit, self._now) or self._now + window
        rate = self._rates.get(limit.unit, 0.0)
        if limit.algorithm in ("calendar", "fixed_window"):
            rate = max(rate, used / max(self._now - (ends_at - window), 1.0))
        return exhaustion_of(
            Standing(
                used=used,
                capacity=accounts * (capacity_of(limit.algorithm, limit.limit, limit.burst) or 0),
                rate=rate,
                window=window,
                ends_at=ends_at,
                algorithm=limit.algorithm,
                refill=accounts * (limit.limit or 0) / limit.window if limit.window else 0.0,
            ),
            self._now,
        )


def _rates(pool: str, now: datetime) -> dict[str, float]:
    """Units a second, by unit, of the jobs of a pool that ended in the last minutes."""
    queues = config.current().queues
    rows = Job.objects.filter(stage=Stage.DONE, queue__in=list(queues), finished_at__gt=now - RECENT_SPAN)
    used: dict[str, int] = {}
    first = now
    for queue_id, own, cost, ended in rows.order_by("-finished_at").values_list(
        "queue_id", "pool", "cost", "finished_at"
    )[:RECENT]:
        if (own or queues[queue_id].pool) == pool and ended is not None:
            first = min(first, ended)
            for unit, units in cost.items():
                used[unit] = used.get(unit, 0) + int(units)
    seconds = max((now - first) / timedelta(seconds=1), 1.0)
    return {unit: units / seconds for unit, units in used.items()}
