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
CONDITION = "condition"

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
    CONDITION: "Condition of a rule met",
}
NEXT: dict[str, str] = {
    BREAKER_OPENED: "Read the account's last error on its page and the provider's status page. The breaker probes by itself;"
    " close it by hand once the provider answers again.",
    ALL_ACCOUNTS_LIMITED: "See on the pool's page until when each account is limited. Add an account, add a fallback pool, or"
    " lower the rate at which jobs arrive.",
    ACCOUNT_AUTH_FAILED: "Enter a valid credential on the account's page, or apply it from the environment. That enables the"
    " account.",
    ACCOUNT_QUOTA_EXHAUSTED: "Top up at the provider, then clear the cooldown on the account's page.",
    HIGH_ERROR_RATE: "Compare the accounts on the pool's page: if one fails, disable it; if all fail, it is the provider. Retries"
    " follow the queue's retry policy.",
    QUOTA_THRESHOLD: "See who uses it on the policy's page. Raise the limit for a while with an override, or ask the caller to slow down.",
    QUEUE_BACKLOG: "See on the queue's page what its jobs wait for. Add workers if slots are the cause; raise the limit or add an"
    " account if a policy or a pool is.",
    DEAD_LETTER_CRITICAL: "Open the failures, fix the cause, then replay one job before the others.",
    JOB_FAILURE_RATE: "Open the failures of this queue: one fingerprint is one cause. Pause the queue if jobs would be lost.",
    CONDITION: "Open the page of the queue or pool. Change the rule's condition if this is normal.",
}
"""What an operator should do next. Notices and the alert's page show it."""

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
