"""What a call through a pool will cost, where its caller has not said so."""

from __future__ import annotations

from collections.abc import Mapping

from quotas.engine import estimate
from quotas.snapshot import resolve


def fill(cost: Mapping[str, int], pool: str | None, body: object, path: str) -> dict[str, int]:
    """`cost` with the tokens that a call with this body is estimated to use, where someone counts tokens.

    The caller's own figures take precedence. A body without a prompt adds nothing: what such a call uses is charged when it is
    settled.
    """
    filled = dict(cost)
    if "tokens" not in filled and counts_tokens(pool):
        config = resolve.snapshot().pools.get(pool or "")
        output = config.provider.default_output_tokens if config else estimate.DEFAULT_OUTPUT
        tokens = estimate.tokens_of(body, path=path, default_output=output)
        if tokens is not None:
            filled["tokens"] = tokens
    return filled


def counts_tokens(pool: str | None) -> bool:
    """Whether a policy, the pool or one of its fallbacks, or its provider limits tokens."""
    snapshot = resolve.snapshot()
    if any(policy.unit == "tokens" for policy in snapshot.policies.values()):
        return True
    first = snapshot.pools.get(pool or "")
    if first is None:
        return False
    every = [first, *(snapshot.pools[name] for name in first.spec.fallback if name in snapshot.pools)]
    return any(
        config.spec.dialect in estimate.COUNTING_DIALECTS or any(limit.unit == "tokens" for limit in config.spec.limits)
        for config in every
    )
