"""Troubles in words: one function for each kind, so that events and the watch say the same."""

from __future__ import annotations

from controlplane.alerts import kinds
from controlplane.alerts.kinds import Trouble


def breaker_opened(pool: str, account: str, why: str = "", until: float | None = None) -> Trouble:
    after = f"; a probe goes out in {until:.0f} s" if until else ""
    summary = f"The circuit breaker of {pool}/{account} is open: {why or 'too many failures'}{after}."
    facts = {"pool": pool, "account": account}
    return Trouble(kinds.BREAKER_OPENED, f"{pool}/{account}", summary, "warning", facts=facts)


def auth_failed(pool: str, account: str) -> Trouble:
    summary = (
        f"The provider refused the credential of {pool}/{account}. The account is disabled until it has another one or"
        " is enabled."
    )
    facts = {"pool": pool, "account": account}
    return Trouble(kinds.ACCOUNT_AUTH_FAILED, f"{pool}/{account}", summary, "critical", facts=facts)


def quota_exhausted(pool: str, account: str) -> Trouble:
    summary = (
        f"{pool}/{account} has used up its money or quota, says the provider. Its calls go to other accounts until it is"
        " paid for or its period ends."
    )
    facts = {"pool": pool, "account": account}
    return Trouble(kinds.ACCOUNT_QUOTA_EXHAUSTED, f"{pool}/{account}", summary, "warning", facts=facts)


def pool_limited(pool: str, why: str = "", until: float | None = None) -> Trouble:
    when = "" if until is None else f" The first is free in {until:.0f} s."
    because = f" ({why})" if why else ""
    summary = f"All accounts of pool {pool} are limited{because}; its jobs wait.{when}"
    return Trouble(kinds.ALL_ACCOUNTS_LIMITED, pool, summary, "critical", facts={"pool": pool})


def error_rate(pool: str, failed: int, calls: int, seconds: float) -> Trouble:
    summary = f"{failed / calls:.0%} of pool {pool}'s calls failed: {failed} of {calls} in {seconds:.0f} s."
    facts = {"pool": pool, "failed": failed, "calls": calls}
    return Trouble(kinds.HIGH_ERROR_RATE, pool, summary, "warning", facts=facts)


def threshold(
    policy: str, project: str, key: str, share: float, used: int | None = None, limit: int | None = None
) -> Trouble:
    subject = "/".join(part for part in (policy, project, key if key != project else "") if part)
    figures = "" if used is None or limit is None else f" ({used:,} of {limit:,})"
    summary = f"{share:.0%} of policy {policy} is used for {key or 'all'}{figures}."
    severity = "critical" if share >= 0.95 else "warning" if share >= 0.8 else "info"
    facts = {"policy": policy, "key": key, "share": share, "used": used, "limit": limit}
    return Trouble(kinds.QUOTA_THRESHOLD, subject, summary, severity, project=project, facts=facts)


def backlog(queue: str, waiting: int, most: int | None, age: float) -> Trouble:
    full = most is not None and waiting >= most
    size = f"{waiting:,} jobs wait" + (f" of at most {most:,}" if most is not None else "")
    summary = f"Queue {queue} falls behind: {size}, the oldest that could run for {age:.0f} s."
    if full:
        summary = f"Queue {queue} is full: {waiting:,} jobs wait, further ones are refused."
    facts = {"queue": queue, "waiting": waiting, "max_size": most, "oldest_age": round(age)}
    return Trouble(kinds.QUEUE_BACKLOG, queue, summary, "critical" if full else "warning", facts=facts)


def letters(project: str, queue: str, category: str, type: str, open_letters: int | None = None) -> Trouble:
    count = f" {open_letters:,} such dead letters are open." if open_letters is not None else ""
    summary = f"A job of project {project} in queue {queue} died: {category}, {type}.{count}"
    facts = {"queue": queue, "category": category, "type": type}
    return Trouble(kinds.DEAD_LETTER_CRITICAL, f"{project}/{queue}", summary, "critical", project=project, facts=facts)
