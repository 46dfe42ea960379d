"""The kinds of alerts. The names are those of the configuration file's `when`."""

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
JOB_FAILURE_RATE = "job_failure_rate"

KINDS: dict[str, str] = {
    BREAKER_OPENED: "Circuit breaker opened",
    ALL_ACCOUNTS_LIMITED: "All accounts limited",
    ACCOUNT_AUTH_FAILED: "Credential refused",
    ACCOUNT_QUOTA_EXHAUSTED: "Account quota exhausted",
    HIGH_ERROR_RATE: "High error rate",
    QUOTA_THRESHOLD: "Quota threshold reached",
    QUEUE_BACKLOG: "Queue backlog",
    DEAD_LETTER_CRITICAL: "Critical dead letters",
    JOB_FAILURE_RATE: "High job failure rate",
}

SEVERITIES = ("info", "warning", "critical")


def rank(severity: str) -> int:
    return SEVERITIES.index(severity)


@dataclass(frozen=True, slots=True)
class Trouble:
    """A problem that exists now. Two with the same `kind` and `subject` are the same problem."""

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
