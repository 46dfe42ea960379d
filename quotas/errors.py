"""All errors of this app. They derive from `QuotaError`; an exception's docstring is its message."""

from __future__ import annotations

from collections.abc import Sequence

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


class UnknownUnit(QuotaError, ValueError):
    """Nothing counts this unit."""

    def __init__(self, unit: str, close: Sequence[str] = ()) -> None:
        suggestion = f" Did you mean {close[0]!r}?" if close else ""
        super().__init__(f"No policy or pool counts the unit {unit!r}.{suggestion}")
        self.unit = unit


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
    "UnknownUnit",
]
