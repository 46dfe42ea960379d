"""Who may use how much: limits for callers, accounts for calls.

`quotas.limits`, `quotas.pools` and the errors are for any Django project's own code; they are loaded when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "CallFailed": "quotas.upstream.call",
    "CallStatus": "quotas.upstream.call",
    "CostExceedsLimit": "quotas.errors",
    "IdempotencyConflict": "quotas.errors",
    "LimitExceeded": "quotas.errors",
    "LimiterUnavailable": "quotas.errors",
    "NetworkDenied": "quotas.errors",
    "NoAccountAvailable": "quotas.errors",
    "PoolDisabled": "quotas.errors",
    "QuotaError": "quotas.errors",
    "UnknownPool": "quotas.errors",
    "UnknownProject": "quotas.errors",
    "limited": "quotas.decorators",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'quotas' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
