"""Retry delays: by strategy, category of the error, and the hint of the provider.

The story: the third attempt of a job ends with a 503. Its queue's policy is `exponential`, initial 1 s, at most 60 s,
jitter 0.1: the wait is 1 × 2² = 4 s, give or take 0.4 s. Had the answer said `Retry-After: 30`, it were 30 s: the
server's own hint comes first and is never shortened. After `max_attempts` there is no further attempt, and the job
becomes a dead letter. An attempt that met a rate limit is no failure and is not counted: such a job is requeued.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from queues.config import RetrySpec
from quotas.engine.categories import Category
from quotas.upstream import backoff

LEAST_WAIT = 1.0
"""Seconds that a job waits at least before it meets a limit again: what is not counted as a failure has no other
bound. Also what a hint means that says "now"."""
NOW = 0.1
"""Seconds: a hint below that says "now"."""
LIMIT_BACKOFF = (60.0, 300.0)
"""Seconds: first and longest wait after a limit, where the category gives none."""
LEAST_RETRY = 0.05
"""Seconds before a retry that counts, whatever the policy and its jitter come to."""


def next_delay(
    policy: RetrySpec,
    category: str,
    failures: int,
    *,
    max_attempts: int,
    hint: float | None = None,
    uniform: Callable[[float, float], float] = random.uniform,
) -> float | None:
    """Seconds until the next attempt after `failures` counted ones, or None if the job is to be given up."""
    exception = policy.by_category.get(category)
    if failures >= max_attempts or exception == "never":
        return None
    strategy, initial, longest = policy.strategy, policy.initial, policy.max
    if strategy == "smart":
        kind = Category.of(category)
        if kind.is_permanent and exception is None:
            return None
        strategy = "exponential"
        initial, longest = kind.backoff or (initial, longest)
    if isinstance(exception, dict):
        strategy = exception.get("strategy", strategy)
        initial = exception.get("initial", initial)
        longest = exception.get("max", longest)
    if hint is not None:
        return backoff.after_hint(LEAST_WAIT if hint < NOW else hint, policy.jitter, uniform)
    if strategy == "exponential":
        wait = backoff.exponential(initial, longest, failures, policy.jitter, uniform)
    else:
        factor = {"linear": float(failures), "fixed": 1.0}[strategy]
        wait = backoff.jittered(min(initial * factor, longest), policy.jitter, uniform)
    return max(wait, LEAST_RETRY)


def limited_delay(
    policy: RetrySpec,
    category: str,
    meetings: int,
    *,
    hint: float | None = None,
    uniform: Callable[[float, float], float] = random.uniform,
) -> float:
    """Seconds until a job that met a limit which only it knows of is tried again; `meetings`: how often it has by now.

    For a job of a pool this is not computed: the pool's account is skipped until the limit is over.
    """
    if hint is not None:
        return backoff.after_hint(max(hint, LEAST_WAIT), policy.jitter, uniform)
    initial, longest = Category.of(category).backoff or LIMIT_BACKOFF
    exception = policy.by_category.get(category)
    if isinstance(exception, dict):
        initial, longest = exception.get("initial", initial), exception.get("max", longest)
    return max(backoff.exponential(initial, longest, meetings, policy.jitter, uniform), LEAST_WAIT)
