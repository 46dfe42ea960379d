"""A check's request: limits in order of report, and whether a reservation is needed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from quotas.engine.types import SCOPE_ORDER, Limit

RESERVATION_LIFE = 600.0
"""Seconds that a reservation waits to be settled, unless a concurrency lease says otherwise."""
INDEX_SIZE = 10_000
"""Recent subjects that are remembered per policy."""
_RANK = {scope: number for number, scope in enumerate(SCOPE_ORDER)}
_LAST = len(SCOPE_ORDER)


@dataclass(frozen=True, slots=True)
class CheckRequest:
    """One check of `check_many`: the arguments of `Limiter.check`."""

    limits: Sequence[Limit]
    dry_run: bool = False
    bypass: bool = False
    token: str = ""
    token_body: str = ""
    reserve: bool | None = None


def in_order(limits: Sequence[Limit]) -> Sequence[Limit]:
    """The limits as they are reported: by scope (SCOPE_ORDER), else as given."""
    last = -1
    for limit in limits:
        rank = _RANK.get(limit.scope, _LAST)
        if rank < last:
            return sorted(limits, key=lambda limit: _RANK.get(limit.scope, _LAST))
        last = rank
    return limits


def wants_reservation(limits: Iterable[Limit]) -> bool:
    """True when actual use is charged later (a unit other than requests, whatever it costs ahead), or a slot must be given
    back."""
    return any(
        limit.limit is not None and (limit.cost > 0 if limit.algorithm == "concurrency" else limit.unit != "requests")
        for limit in limits
    )
