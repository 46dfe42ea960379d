"""What can be alerted on. The names are those of the configuration file's `when`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

BREAKER_OPENED = "breaker_opened"
ALL_ACCOUNTS_LIMITED = "all_accounts_limited"
ACCOUNT_AUTH_FAILED = "account_auth_failed"
ACCOUNT_QUOTA_EXHAUSTED = "account_quota_exhausted"
HIGH_ERROR_RATE = "high_error_rate"
QUOTA_THRESHOLD = "quota_threshold"
QUEUE_BACKLOG = "queue_backlog"
DEAD_LETTER_CRITICAL = "dead_letter_critical"

KINDS: dict[str, str] = {
    BREAKER_OPENED: "A circuit breaker opened",
    ALL_ACCOUNTS_LIMITED: "All accounts of a pool are limited",
    ACCOUNT_AUTH_FAILED: "An account's credential was refused",
    ACCOUNT_QUOTA_EXHAUSTED: "An account has used up its money or quota",
    HIGH_ERROR_RATE: "Many of a pool's calls fail",
    QUOTA_THRESHOLD: "A quota's use crossed a threshold",
    QUEUE_BACKLOG: "A queue falls behind",
    DEAD_LETTER_CRITICAL: "Jobs died that need a person",
}

SEVERITIES = ("info", "warning", "critical")


def rank(severity: str) -> int:
    return SEVERITIES.index(severity)


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that is wrong now. `kind` and `subject` say whether it is the same as one that is known."""

    kind: str
    subject: str
    summary: str
    severity: str
    project: str = ""
    """Slug of the project that may see it; empty: the platform only."""
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def place(self) -> tuple[str, str]:
        return self.kind, self.subject
