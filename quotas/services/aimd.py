"""How an adaptive policy moves: down by a share when things go wrong, up by steps when they go well (AIMD).

    outcomes of one interval -> `judge`: worse, better or neither -> `next_limit`, between floor and ceiling

Between what is bad and what is good lies a band in which nothing moves (hysteresis): errors above `errors` are bad and
at most a quarter of that is good; with latency and the upstream's own quota it is alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from quotas.suggestions import did_you_mean

SLOW_SHARE = 0.1
"""Share of answers slower than `latency` from which on an interval is bad."""
CALM = 0.25
"""Share of what is bad that is still good."""
ROOM = 0.8
"""Share of `use` below which the upstream has room again."""


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
    """Share of its own quota that an upstream may tell (by header fields) before the limit goes down."""
    pool: str | None = None
    """A pool whose calls this policy hears of, beside what is reported for its own subjects."""
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
            if type(data.get(name)) is not int or not 1 <= data[name] < 2**53:
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


@dataclass(slots=True)
class Outcomes:
    """What came of the calls of one interval."""

    seen: int = 0
    failed: int = 0
    timed: int = 0
    """Those whose latency is known, and of these the ones that were `slow`."""
    slow: int = 0
    told: int = 0
    """Those whose upstream told its quota; of these `tight` ones were above `use`, `roomy` ones well below."""
    tight: int = 0
    roomy: int = 0

    def add(self, part: str, count: int) -> None:
        setattr(self, part, getattr(self, part) + count)


@dataclass(frozen=True, slots=True)
class Verdict:
    """`direction`: -1 worse, 1 better, 0 neither. `why` in words."""

    direction: int
    why: str


def judge(rule: AdaptiveRule, outcomes: Outcomes) -> Verdict:
    """What the outcomes ask for; the worst of them decides."""
    failed = outcomes.failed / outcomes.seen if outcomes.seen else 0.0
    slow = outcomes.slow / outcomes.timed if outcomes.timed else 0.0
    tight = outcomes.tight / outcomes.told if outcomes.told else 0.0
    roomy = outcomes.roomy / outcomes.told if outcomes.told else 1.0
    if failed > rule.errors:
        return Verdict(-1, f"{failed:.0%} of {outcomes.seen} calls failed, more than {rule.errors:.0%}")
    if rule.latency is not None and slow > SLOW_SHARE:
        return Verdict(-1, f"{slow:.0%} of {outcomes.timed} answers took more than {rule.latency:g} s")
    if tight > 0.5:
        return Verdict(-1, f"the upstream tells that more than {rule.use:.0%} of its quota is used")
    if failed <= CALM * rule.errors and slow <= CALM * SLOW_SHARE and roomy > 0.5:
        return Verdict(1, f"{failed:.0%} of {outcomes.seen} calls failed, and there is room")
    return Verdict(0, "neither good nor bad")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
