"""How long a call through a pool waits before it is tried again."""

from __future__ import annotations

import random
from collections.abc import Callable

from quotas.engine.types import CallOutcome

BOUNDS = {
    "rate_limited": (60.0, 300.0),
    "quota_exhausted": (300.0, 3600.0),
    "server": (0.5, 4.0),
    "network": (0.5, 4.0),
    "timeout": (0.5, 4.0),
}
"""Seconds: the first wait and the longest, by category. What is not here is not tried again."""
JITTER = 0.1
ASK_AGAIN = 1.0
"""Seconds after which a caller that waits for an account asks again: an operator or a changed configuration may free
one early."""
LIMITED = frozenset({"rate_limited", "quota_exhausted"})


def delay(
    outcome: CallOutcome, failures: int, uniform: Callable[[float, float], float] = random.uniform
) -> float | None:
    """Seconds before the next attempt after `failures` failed ones; None where another try would not help.

    The server's own hint comes first: it is never shortened, and lengthened by at most a tenth.
    """
    bounds = BOUNDS.get(outcome.category)
    if bounds is None:
        return None
    if outcome.retry_after is not None:
        return outcome.retry_after * uniform(1.0, 1.0 + JITTER)
    first, longest = bounds
    wait = min(first * 2.0 ** min(failures - 1, 60), longest)
    return wait * uniform(1.0 - JITTER, 1.0 + JITTER)
