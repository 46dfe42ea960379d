"""An account's live state, as it is in Redis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from quotas.engine.learned import AccountQuota

AccountStateName = Literal["available", "cooling_down", "open", "half_open", "disabled", "paused"]
STATES: tuple[AccountStateName, ...] = get_args(AccountStateName)


@dataclass(frozen=True, slots=True)
class AccountState:
    """What `Accounts.states` returns for each account of a pool. Durations in seconds."""

    id: str
    name: str
    state: AccountStateName = "available"
    until: float | None = None
    """Seconds from now until the state ends; None where it has no end of its own."""
    why: str = ""
    health: float = 1.0
    successes: int = 0
    errors: Mapping[str, int] = field(default_factory=dict)
    skips: Mapping[str, int] = field(default_factory=dict)
    in_flight: int = 0
    concurrency: int | None = None
    models: Mapping[str, float] = field(default_factory=dict)
    """Models that were refused: seconds until each may be requested again."""
    learned: Mapping[str, AccountQuota] = field(default_factory=dict)
    """By unit."""
    latency: float | None = None
    last_used: float | None = None
    """Unix time by the server's clock."""
    last_error: str = ""
    last_error_at: float | None = None
