"""The member `adaptive` of a policy: between which bounds its limit moves, and what moves it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from quotas.engine.costs import MAX_COST
from quotas.suggestions import did_you_mean


@dataclass(frozen=True, slots=True)
class AdaptiveRule:
    """The member `adaptive` of a policy."""

    floor: int
    ceiling: int
    errors: float = 0.2
    """Share of failures (5xx, 429, timeouts, broken connections) above which the limit goes down."""
    latency: float | None = None
    """Seconds: more than a tenth of the answers slower than this, and the limit goes down. None: not looked at."""
    use: float = 0.9
    """Share of the upstream's own quota, by its header fields, above which the limit goes down."""
    pool: str | None = None
    """A pool whose calls count for this policy, beside those reported for its own subjects."""
    increase: float = 0.05
    """Step up, as a share of ceiling - floor."""
    decrease: float = 0.3
    """Step down, as a share of the limit."""
    interval: float = 5.0
    """Seconds between two decisions."""
    samples: int = 10
    """Outcomes that a decision needs at least; fewer are kept for the next one."""

    @classmethod
    def of(cls, data: object) -> AdaptiveRule:
        """Raises ValueError, which names the member."""
        if not isinstance(data, Mapping):
            raise ValueError('adaptive: bounds, such as {"floor": 10, "ceiling": 100}')
        known = {field.name for field in fields(cls)}
        for name in data:
            if name not in known:
                hint = did_you_mean(name, known)
                raise ValueError(f"adaptive: {name!r} is not known{hint}; known are {', '.join(sorted(known))}")
        for name in ("floor", "ceiling"):
            if type(data.get(name)) is not int or not 1 <= data[name] <= MAX_COST:
                raise ValueError(f"adaptive: {name} is a whole number, at least 1")
        if data["floor"] > data["ceiling"]:
            raise ValueError("adaptive: the floor is above the ceiling")
        for name in ("errors", "use", "increase", "decrease"):
            if name in data and not (_is_number(data[name]) and 0 < data[name] <= 1):
                raise ValueError(f"adaptive: {name} is a share above 0, up to 1")
        for name, least, most in (("latency", 0.001, 3600), ("interval", 1, 3600)):
            value = data.get(name)
            if value is not None and not (_is_number(value) and least <= value <= most):
                raise ValueError(f"adaptive: {name} is from {least} to {most} seconds")
        if data.get("interval", 1) is None:
            raise ValueError("adaptive: interval is in seconds")
        if "samples" in data and (type(data["samples"]) is not int or not 1 <= data["samples"] <= 1_000_000):
            raise ValueError("adaptive: samples is a whole number, at least 1")
        if data.get("pool") is not None and not isinstance(data["pool"], str):
            raise ValueError("adaptive: pool is a pool's name")
        return cls(**data)

    def document(self) -> dict[str, Any]:
        """As it is stored and exported: without what is left to defaults."""
        return {
            field.name: value
            for field in fields(self)
            if (value := getattr(self, field.name)) != field.default or field.name in ("floor", "ceiling")
        }

    def clamp(self, limit: int) -> int:
        return max(self.floor, min(self.ceiling, limit))

    def lower(self, limit: int) -> int:
        return max(self.floor, min(limit - 1, math.floor(limit * (1 - self.decrease))))

    def higher(self, limit: int) -> int:
        return min(self.ceiling, limit + max(1, math.ceil((self.ceiling - self.floor) * self.increase)))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
