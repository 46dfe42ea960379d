"""How much a limit admits at once."""

from __future__ import annotations


def capacity_of(algorithm: str, limit: int | None, burst: int | None) -> int | None:
    """The most that may be used at once: a token bucket's burst, else the limit itself. None where nothing limits."""
    return burst if algorithm == "token_bucket" and limit and burst is not None else limit


def burst_at(limit: int | None, burst: int | None, configured: int | None) -> int | None:
    """The burst of a bucket whose limit is another than the configured one: it grows and shrinks with the limit.

    None: the limit itself.
    """
    if burst is None or limit == configured:
        return burst
    if not configured or not limit:
        return None
    return max(1, burst * limit // configured)
