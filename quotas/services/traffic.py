"""One subject's recorded use as traffic, and that traffic checked against a policy: arithmetic only, no SQL, no Redis.

A roll-up has the highest use of a counter in a minute, hour or day. What was admitted in it is what the use rose by,
after what had left the window; what was refused is added. The policy then checks one such step after another.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from quotas.engine.limits.periods import boundaries
from quotas.snapshot.policies import CompiledPolicy


@dataclass(frozen=True, slots=True)
class Recorded:
    """A roll-up of one subject."""

    start: float
    used: int
    denied: int


@dataclass(frozen=True, slots=True)
class Step:
    """The demand of one minute, hour or day: `admitted` and `refused` units; `peak` is the highest use in it."""

    start: float
    admitted: int
    refused: int
    peak: int

    @property
    def demand(self) -> int:
        return self.admitted + self.refused


def steps_of(source: CompiledPolicy, rows: Sequence[Recorded], length: float, *, refusals: bool) -> list[Step]:
    """The steps of rows in the order of time, each `length` seconds long; `refusals`: whether a refusal is a unit."""
    rise = _rises(source, length)
    return [Step(row.start, rise(row), row.denied if refusals else 0, row.used) for row in rows]


def _rises(source: CompiledPolicy, length: float) -> Callable[[Recorded], int]:
    """Called row by row: returns how many of the row's units were admitted."""
    level, last = 0, 0.0
    admitted: deque[tuple[float, int]] = deque()

    def period(row: Recorded) -> int:
        nonlocal level, last
        begun = begin_of(source, row.start)
        before = level if last == begun else 0
        level, last = max(before, row.used), begun
        return level - before

    def sliding(row: Recorded) -> int:
        # What may still have been in the window is taken off whole: the rise is what there was at least.
        while admitted and admitted[0][0] < row.start - source.window:
            admitted.popleft()
        rise = max(0, row.used - sum(units for _, units in admitted))
        admitted.append((row.start, rise))
        return rise

    def bucket(row: Recorded) -> int:
        nonlocal level, last
        drained = (source.limit or 0) / source.window * (row.start - last)
        rise = max(0, row.used - max(0, int(level - drained)))
        level, last = row.used, row.start
        return rise

    if source.algorithm == "calendar" or (source.algorithm == "fixed_window" and source.window >= length):
        return period
    if source.algorithm.startswith("sliding_window") and source.window > length:
        return sliding
    if source.algorithm == "token_bucket":
        return bucket
    return lambda row: row.used  # concurrency, and windows that end within a step


def begin_of(policy: CompiledPolicy, moment: float) -> float:
    """Where the fixed window or calendar period begins that `moment` lies in."""
    if policy.algorithm == "calendar":
        return boundaries(policy.period, policy.timezone, int(moment * 1e6))[1] / 1e6
    return moment // policy.window * policy.window


def denials(policy: CompiledPolicy, limit: int | None, steps: Sequence[Step], length: float) -> Iterator[int]:
    """For each step, how many of its units the policy would have refused with that limit."""
    if limit is None or limit == 0:
        yield from (0 if limit is None else step.demand for step in steps)
        return
    room = _rooms(policy, limit, length)
    for step in steps:
        admit = room(step)
        yield step.demand - admit


def _rooms(policy: CompiledPolicy, limit: int, length: float) -> Callable[[Step], int]:
    """Called step by step: returns how many of the step's units are admitted, and charges them."""
    used, last = 0.0, 0.0
    admitted: deque[tuple[float, int]] = deque()

    def several(step: Step) -> int:
        """Windows of which several lie in one step: each takes its share of what is evenly spread."""
        return min(step.demand, int(limit * length / policy.window))

    def period(step: Step) -> int:
        nonlocal used, last
        begun = begin_of(policy, step.start)
        used = used if last == begun else 0
        taken = min(step.demand, max(0, int(limit - used)))
        used, last = used + taken, begun
        return taken

    def sliding(step: Step) -> int:
        while admitted and admitted[0][0] <= step.start - policy.window:
            admitted.popleft()
        taken = min(step.demand, max(0, limit - sum(units for _, units in admitted)))
        admitted.append((step.start, taken))
        return taken

    def bucket(step: Step) -> int:
        nonlocal used, last
        rate = limit / policy.window
        capacity = policy.burst if policy.burst is not None else limit
        used = max(0.0, used - rate * max(0.0, step.start - last))
        taken = min(step.demand, int(capacity - used + rate * length))
        used, last = max(0.0, used + taken - rate * length), step.start + length
        return taken

    if policy.algorithm == "concurrency":
        return lambda step: min(step.demand, limit)
    if policy.algorithm == "token_bucket":
        return bucket
    if policy.algorithm != "calendar" and policy.window < length:
        return several
    return period if policy.algorithm in ("fixed_window", "calendar") else sliding
