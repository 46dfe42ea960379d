"""Telling the engine how calls went: the account's outcome, the caller's actual use."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import structlog

from queues.models import Job
from queues.worker.settle import Ended
from quotas.engine.errors import LimiterUnavailable
from quotas.engine.types import CallOutcome
from quotas.runtime.connection import limiter
from quotas.services import accounts

log = structlog.get_logger(__name__)

REFUSED = frozenset({"rate_limited", "quota_exhausted"})
"""Categories of calls that the provider did not do: the caller is charged nothing, as for what was never begun."""


INVALID = frozenset({"validation", "auth"})
"""Categories of calls that the provider answered without doing them: they used their request and nothing else."""


@dataclass(frozen=True, slots=True)
class Debt:
    """What is to be told of one delivery: its account's lease and how the call went, its reservation and its use."""

    lease: str
    outcome: CallOutcome
    reservation: str
    actual: Mapping[str, int]


_owed: deque[Debt] = deque(maxlen=10_000)
"""What could not be told while Redis was away, to be told when it is back: slots would be held until they run out."""


def settle_engine(ended: Sequence[Ended]) -> None:
    """Settle the leases and reservations of deliveries that ended.

    Both calls are idempotent. Where Redis is away the job's own end does not wait; it is made up for by `pay`.
    """
    _settle([
        Debt(
            item.claimed.job.account_lease, _outcome(item), item.claimed.job.reservation,
            _actual(item),
        )
        for item in ended
        if item.claimed.job.account_lease or item.claimed.job.reservation
    ])  # fmt: skip


def _outcome(item: Ended) -> CallOutcome:
    """How the call went, with what was asked: one job's refusals are those of one request, whatever its attempts."""
    outcome = item.result.upstream or CallOutcome("unknown")
    if outcome.category not in ("ok", "auth"):
        return outcome
    job = item.claimed.job
    return replace(outcome, target=outcome.target or job.type, request=job.uid)


def pay() -> int:
    """Tell what is owed, if anything is; returns how much is still owed then."""
    if _owed:
        debts = list(_owed)
        _owed.clear()
        _settle(debts)
    return len(_owed)


def forget() -> None:
    """In a forked process: its parent's debts are its parent's."""
    _owed.clear()


def _settle(debts: Sequence[Debt]) -> None:
    try:
        leases = [(debt.lease, debt.outcome) for debt in debts if debt.lease]
        if leases:
            accounts.settle_outcomes(leases)
        for debt in debts:
            if debt.reservation:
                limiter().settle(debt.reservation, debt.actual)
    except LimiterUnavailable as error:
        _owed.extend(debts)
        log.warning("worker.engine_away", error=str(error), deliveries=len(debts), owed=len(_owed))


def _actual(item: Ended) -> dict[str, int]:
    result = item.result
    turned_away = result.category in REFUSED or (result.category == "auth" and not result.counted)
    if turned_away or result.returned:
        return dict.fromkeys([*item.claimed.job.cost, "requests"], 0)
    if result.upstream is not None and result.upstream.category in INVALID:
        return {**dict.fromkeys(item.claimed.job.cost.keys() - {"requests"}, 0), **result.actual}
    return dict(result.actual)


def give_back(job: Job, lease: str, reservation: str) -> None:
    """Return what was reserved for a delivery that never ran."""
    if lease or reservation:
        _settle([Debt(lease, CallOutcome("unused"), reservation, dict.fromkeys([*job.cost, "requests"], 0))])


def settle_lost(leases: Sequence[str], reservations: Sequence[str]) -> None:
    """End what deliveries held whose workers are gone: the calls may have been made, so the estimates stand."""
    _settle(
        [
            Debt(lease, CallOutcome("unknown"), reservation, {})
            for lease, reservation in zip(leases, reservations, strict=True)
            if lease or reservation
        ]
    )
