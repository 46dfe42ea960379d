"""All errors of this app. They derive from `QuotaError`; an exception's docstring is its message."""

from __future__ import annotations

from quotas.engine.errors import (
    CostExceedsLimit,
    IdempotencyConflict,
    LimiterUnavailable,
    LimitExceeded,
    NoAccountAvailable,
    PoolDisabled,
    QuotaError,
)


class UnknownProject(QuotaError):
    """There is no such project."""


class UnknownPool(QuotaError, KeyError):
    """There is no such pool."""

    __str__ = Exception.__str__  # a KeyError's own puts quotes around its message


class NetworkDenied(QuotaError):
    """The address belongs to a network that is denied."""

    def __init__(self, network: str) -> None:
        super().__init__(network)
        self.network = network
        """The name of the entry that denies it."""


__all__ = [
    "CostExceedsLimit",
    "IdempotencyConflict",
    "LimitExceeded",
    "LimiterUnavailable",
    "NetworkDenied",
    "NoAccountAvailable",
    "PoolDisabled",
    "QuotaError",
    "UnknownPool",
    "UnknownProject",
]
