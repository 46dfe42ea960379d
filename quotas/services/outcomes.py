"""Outcomes of calls, for the adaptive policies that the calls were checked against or that follow their pool.

Noted in the process and added up in Redis once a second; `services.adaptive` decides by it. Where no policy is
adaptive this costs a look into an empty dict.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from quotas.engine import dialects
from quotas.engine.categories import Category
from quotas.engine.learned import LearnedQuota
from quotas.engine.types import CallOutcome
from quotas.runtime.counters import BufferedCounter
from quotas.services.aimd import ROOM
from quotas.services.limits import Check
from quotas.snapshot import resolve
from quotas.snapshot.policies import CompiledPolicy

counter = BufferedCounter("outcomes")
"""(policy's name, part of `policies.adaptive.Outcomes`)"""


def outcome_of(
    *,
    status: int | None = None,
    error: str = "",
    latency: float | None = None,
    headers: object = None,
    dialect: str = "generic",
) -> CallOutcome:
    """The outcome of a call from its caller's report: the answer's status and fields, or a `timeout` or `network` error."""
    if status is None:
        return dialects.failed(error, latency=latency) if error else CallOutcome("ok", latency=latency)
    return dialects.read(dialect, status, headers, latency=latency)


def report(question: Check, outcome: CallOutcome, count: int = 1) -> list[str]:
    """Record the outcome of calls that match the question. Returns the adaptive policies that it counts for.

    Raises what `Check.limits` raises.
    """
    snapshot = resolve.snapshot()
    if not snapshot.adaptive:
        return []
    return of_policies((limit.name for limit in question.limits(snapshot)), outcome, count)


def of_policies(names: Iterable[str], outcome: CallOutcome, count: int = 1) -> list[str]:
    """Record the outcome for those of the named policies that are adaptive; returns them."""
    adaptive = resolve.snapshot().adaptive
    if not adaptive or not Category.of(outcome.category).is_evidence:
        return []
    found = [policy for name in names if (policy := adaptive.get(name)) is not None]
    for policy in found:
        counter.add(((policy.name, part) for part in _parts(policy, outcome)), count)
    return [policy.name for policy in found]


def of_reservation(limit_ids: Iterable[str], outcome: CallOutcome) -> list[str]:
    """Record the outcome for the adaptive policies that a reservation was charged by."""
    ids = set(limit_ids)
    return of_policies([policy.name for policy in resolve.snapshot().adaptive.values() if policy.id in ids], outcome)


def of_account(account_id: str, outcome: CallOutcome) -> list[str]:
    """Record the outcome for the adaptive policies that follow the account's pool."""
    snapshot = resolve.snapshot()
    followers: dict[str, list[str]] = {}
    for policy in snapshot.adaptive.values():
        if policy.adaptive is not None and policy.adaptive.pool is not None:
            followers.setdefault(policy.adaptive.pool, []).append(policy.name)
    for pool, names in followers.items():
        config = snapshot.pools.get(pool)
        if config is not None and any(account.id == account_id for account in config.spec.accounts):
            return of_policies(names, outcome)
    return []


def _parts(policy: CompiledPolicy, outcome: CallOutcome) -> list[str]:
    rule = policy.adaptive
    assert rule is not None
    parts = ["seen"]
    if Category.of(outcome.category).is_transient:
        parts.append("failed")
    if outcome.latency is not None and rule.latency is not None:
        parts.append("timed")
        if outcome.latency > rule.latency:
            parts.append("slow")
    used = _used_share(outcome.learned)
    if used is not None:
        parts.append("with_quota")
        if used > rule.use:
            parts.append("tight")
        elif used < ROOM * rule.use:
            parts.append("roomy")
    return parts


def _used_share(learned: Mapping[str, LearnedQuota]) -> float | None:
    """The greatest share of a quota that the upstream says is used; None where it says nothing."""
    return max((share for quota in learned.values() if (share := quota.used_share) is not None), default=None)
