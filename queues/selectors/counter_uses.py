"""What is used of limits now, and when it comes back, by the same dry runs that checks and explanations make."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from queues.simulation.counters import NOTHING, Use, spread
from quotas.engine.errors import LimiterUnavailable
from quotas.engine.limits.requests import CheckRequest
from quotas.engine.types import Decision, Limit, LimitState
from quotas.runtime.connection import limiter

LEVELS = 8
"""Levels of a sliding window's use at which it is read when they come back."""


def counter_key(limit: Limit) -> str:
    """Names the counter of a limit that was resolved for a subject."""
    return "\n".join((limit.id, limit.partition, limit.subject, limit.space))


def read_uses(limits: Mapping[str, Limit], now: float) -> dict[str, Use]:
    """The use of each of the limits, by the same keys. Nothing is charged. Raises `LimiterUnavailable`."""
    limiting = {key: limit for key, limit in limits.items() if limit.limit}
    states = dict(zip(limiting, _states(replace(limit, cost=0) for limit in limiting.values()), strict=True))
    found: dict[str, Use] = {}
    curves: list[tuple[str, int, Limit]] = []
    for key, state in states.items():
        limit = limiting[key]
        if not state.used:
            found[key] = NOTHING
        elif limit.algorithm == "token_bucket":
            found[key] = Use(((now + state.reset_after, state.reset_after * (limit.limit or 0) / limit.window),))
        elif limit.algorithm.startswith("sliding_window"):
            curves += [(key, units, _asking(limit, state, units)) for units in _levels(limit, state)]
        else:
            found[key] = Use(((now + state.reset_after, float(state.used)),))
    times: dict[str, list[tuple[float, float]]] = {}
    for (key, units, _), state in zip(curves, _states(limit for _, _, limit in curves), strict=True):
        if state.retry_after:
            times.setdefault(key, []).append((now + state.retry_after, float(units)))
    for key in dict.fromkeys(key for key, _, _ in curves):
        whole = (now + states[key].reset_after, float(states[key].used))
        found[key] = spread([*(one for one in times.get(key, ()) if one[0] < whole[0]), whole])
    return found


def _levels(limit: Limit, state: LimitState) -> list[int]:
    """Units of the use, of each of which it is read when so many have come back."""
    over = state.used - (limit.limit or 0)
    levels = {max(state.used * number // LEVELS, 1) for number in range(1, LEVELS + 1)}
    return sorted(units for units in levels if units > over)


def _asking(limit: Limit, state: LimitState, units: int) -> Limit:
    """The limit with a cost that passes when so many units of its use have come back."""
    return replace(limit, cost=min((limit.limit or 0) - state.used + units, limit.limit or 0))


def _states(limits: Iterable[Limit]) -> list[LimitState]:
    requests = [CheckRequest((limit,), dry_run=True) for limit in limits]
    found = []
    for decision in limiter().check_many(requests) if requests else []:
        if isinstance(decision, LimiterUnavailable):
            raise decision
        assert isinstance(decision, Decision)
        found.append(decision.limits[0])
    return found
