"""The wait before an attempt is repeated: of calls through a pool, and of jobs (`queues.retry`)."""

from __future__ import annotations

import random
from collections.abc import Callable

from quotas.engine.categories import Category
from quotas.engine.types import CallOutcome

JITTER = 0.1
"""Share by which a wait is lengthened or shortened at random, so that those that wait do not come all at once."""
MAX_HINT_JITTER = 0.1
ASK_AGAIN = 1.0
"""Seconds after which a caller that waits for an account tries again: an operator or a changed configuration may free
one early."""
Uniform = Callable[[float, float], float]


def exponential(
    first: float, longest: float, failures: int, jitter: float = JITTER, uniform: Uniform = random.uniform
) -> float:
    """Seconds after `failures` failed attempts: `first`, doubled after each further failure, up to `longest`."""
    return jittered(min(first * 2.0 ** min(max(failures - 1, 0), 60), longest), jitter, uniform)


def jittered(wait: float, jitter: float = JITTER, uniform: Uniform = random.uniform) -> float:
    """`wait`, lengthened or shortened by up to the share `jitter`."""
    return wait * uniform(1.0 - jitter, 1.0 + jitter)


def after_hint(hint: float, jitter: float = JITTER, uniform: Uniform = random.uniform) -> float:
    """Seconds after which to follow a server's own hint: never earlier than it says, and at most a tenth later."""
    return hint * uniform(1.0, 1.0 + min(jitter, MAX_HINT_JITTER))


def delay(outcome: CallOutcome, failures: int, uniform: Uniform = random.uniform) -> float | None:
    """Seconds before the next attempt of a call after `failures` failed ones; None where another try would not help."""
    bounds = Category.of(outcome.category).backoff
    if bounds is None:
        return None
    if outcome.retry_after is not None:
        return after_hint(outcome.retry_after, uniform=uniform)
    return exponential(*bounds, failures, uniform=uniform)
