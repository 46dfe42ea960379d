"""Problems in words: what happened and what to do. One function for each kind, so that events and the watch agree."""

from __future__ import annotations

from collections.abc import Iterable

from controlplane.alerts import kinds
from controlplane.alerts.kinds import Trouble
from quotas.models.policy import default_warnings


def breaker_opened(pool: str, account: str, why: str = "", until: float | None = None) -> Trouble:
    after = f" Next probe in {until:.0f} s." if until else ""
    summary = f"The circuit breaker of {pool}/{account} is open: {why or 'too many failures'}.{after}"
    facts = {"pool": pool, "account": account}
    return Trouble(kinds.BREAKER_OPENED, f"{pool}/{account}", summary, "warning", facts=facts)


def auth_failed(pool: str, account: str) -> Trouble:
    summary = (
        f"The provider refused the credential of {pool}/{account}. The account is disabled. Set"
        " a valid credential, or enable the account again."
    )
    facts = {"pool": pool, "account": account}
    return Trouble(kinds.ACCOUNT_AUTH_FAILED, f"{pool}/{account}", summary, "critical", facts=facts)


def quota_exhausted(pool: str, account: str) -> Trouble:
    summary = (
        f"{pool}/{account} has exhausted its credit or quota at the provider. Calls use other accounts until it is topped up"
        " or its period ends."
    )
    facts = {"pool": pool, "account": account}
    return Trouble(kinds.ACCOUNT_QUOTA_EXHAUSTED, f"{pool}/{account}", summary, "warning", facts=facts)


def pool_limited(pool: str, why: str = "", until: float | None = None) -> Trouble:
    when = "" if until is None else f" The first is available in {until:.0f} s."
    because = f" ({why})" if why else ""
    summary = f"All accounts of pool {pool} are limited{because}. Its jobs stay queued.{when}"
    return Trouble(kinds.ALL_ACCOUNTS_LIMITED, pool, summary, "critical", facts={"pool": pool})


def error_rate(pool: str, failed: int, calls: int, seconds: float) -> Trouble:
    summary = f"{failed / calls:.0%} of pool {pool}'s calls failed: {failed} of {calls} in {seconds:.0f} s."
    facts = {"pool": pool, "failed": failed, "calls": calls}
    return Trouble(kinds.HIGH_ERROR_RATE, pool, summary, "warning", facts=facts)


def threshold(
    policy: str, project: str, key: str, share: float, used: int | None = None, limit: int | None = None
) -> Trouble:
    subject = "/".join(part for part in (policy, project, key if key != project else "") if part)
    whose = f" for {key}" if key else ""
    summary = f"Usage of policy {policy}{whose} has reached its {share:.0%} threshold."
    if used is not None and limit:
        summary = (
            f"Policy {policy}: {used / limit:.0%} used{whose} ({used:,} of {limit:,}), past the {share:.0%} threshold."
        )
    severity = "critical" if share >= 0.95 else "warning" if share >= 0.8 else "info"
    facts = {"policy": policy, "key": key, "share": share, "used": used, "limit": limit}
    return Trouble(kinds.QUOTA_THRESHOLD, subject, summary, severity, project=project, facts=facts)


def failure_rate(queue: str, died: int, ended: int) -> Trouble:
    summary = f"{died / ended:.0%} of queue {queue}'s jobs fail for good: {died:,} of the last {ended:,}. See its dead letters."
    facts = {"queue": queue, "died": died, "ended": ended}
    return Trouble(kinds.JOB_FAILURE_RATE, queue, summary, "warning", facts=facts)


PERSONAL = frozenset({"user", "ip", "custom", "endpoint"})
"""Scopes whose subjects reach a limit in normal operation: that is what the limit is for."""


def is_alerted(scope: str, warn_at: Iterable[float]) -> bool:
    """Whether reaching a policy's thresholds is a problem: of a project, a queue or the platform always, of one user,
    address or key only where the policy has thresholds of its own."""
    return scope not in PERSONAL or sorted(warn_at) != sorted(default_warnings())


def backlog(queue: str, waiting: int, most: int | None, age: float) -> Trouble:
    full = most is not None and waiting >= most
    size = f"{waiting:,} jobs queued" + (f" of at most {most:,}" if most is not None else "")
    summary = f"Queue {queue} has a backlog: {size}; the oldest has been ready to run for {age:.0f} s."
    if full:
        summary = f"Queue {queue} is full: {waiting:,} jobs queued. New jobs are refused."
    facts = {"queue": queue, "waiting": waiting, "max_size": most, "oldest_age": round(age)}
    return Trouble(kinds.QUEUE_BACKLOG, queue, summary, "critical" if full else "warning", facts=facts)


def letters(project: str, queue: str, category: str, type: str, open_letters: int | None = None) -> Trouble:
    count = f" {open_letters:,} critical dead letters are open." if open_letters is not None else ""
    summary = f"A job of project {project} in queue {queue} failed for good: {category}, {type}.{count}"
    facts = {"queue": queue, "category": category, "type": type}
    return Trouble(kinds.DEAD_LETTER_CRITICAL, f"{project}/{queue}", summary, "critical", project=project, facts=facts)
