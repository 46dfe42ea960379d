"""How an adaptive policy moves: down by a share when calls go wrong, up by steps when they go well (AIMD).

    outcomes of one interval -> `judge`: worse, better or neither -> the next limit, between floor and ceiling

Between what is bad and what is good lies a band in which nothing moves (hysteresis): errors above `errors` are bad, and
at most a quarter of that is good. Latency and the upstream's own quota are judged in the same way.
"""

from __future__ import annotations

from dataclasses import dataclass

from quotas.snapshot.adaptive_rule import AdaptiveRule

SLOW_SHARE = 0.1
"""Share of answers slower than `latency` from which on an interval is bad."""
CALM = 0.25
"""Share of what is bad that is still good."""
ROOM = 0.8
"""Share of `use` below which the upstream has room again."""


@dataclass(slots=True)
class Outcomes:
    """What came of the calls of one interval."""

    seen: int = 0
    failed: int = 0
    timed: int = 0
    """Those whose latency is known, and of these the ones that were `slow`."""
    slow: int = 0
    with_quota: int = 0
    """Calls whose upstream reported its quota; of these `tight` ones were above `use`, `roomy` ones well below."""
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
    """What the outcomes require; the worst of them decides."""
    failed = outcomes.failed / outcomes.seen if outcomes.seen else 0.0
    slow = outcomes.slow / outcomes.timed if outcomes.timed else 0.0
    tight = outcomes.tight / outcomes.with_quota if outcomes.with_quota else 0.0
    roomy = outcomes.roomy / outcomes.with_quota if outcomes.with_quota else 1.0
    if failed > rule.errors:
        return Verdict(-1, f"{failed:.0%} of {outcomes.seen} calls failed, more than {rule.errors:.0%}")
    if rule.latency is not None and slow > SLOW_SHARE:
        return Verdict(-1, f"{slow:.0%} of {outcomes.timed} answers took more than {rule.latency:g} s")
    if tight > 0.5:
        return Verdict(-1, f"the upstream reports that more than {rule.use:.0%} of its quota is used")
    if failed <= CALM * rule.errors and slow <= CALM * SLOW_SHARE and roomy > 0.5:
        return Verdict(1, f"{failed:.0%} of {outcomes.seen} calls failed, and there is room")
    return Verdict(0, "neither good nor bad")
