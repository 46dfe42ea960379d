"""Telling the engine how calls went: the account's outcome, the caller's actual use."""

from __future__ import annotations

from collections.abc import Sequence

import structlog
from django.db import DatabaseError

from queues.models import Job
from queues.worker.settle import Ended
from quotas.connection import accounts, limiter
from quotas.engine.errors import LimiterUnavailable
from quotas.engine.types import Outcome, Settled
from quotas.services import outcomes, pools

log = structlog.get_logger(__name__)

REFUSED = frozenset({"rate_limited", "quota_exhausted"})
"""Categories of calls that the provider did not do: the caller is charged nothing, as for what was never begun."""


def settle_engine(ended: Sequence[Ended]) -> None:
    """Settle the leases and reservations of deliveries that ended.

    Where Redis is away they run out by themselves; both calls are idempotent, and the job's own end does not wait.
    """
    leases = [
        (item.claimed.job.account_lease, item.result.upstream or Outcome("unknown"))
        for item in ended
        if item.claimed.job.account_lease
    ]
    try:
        if leases:
            found = accounts().settle_many(leases)
            _tell([settled for settled in found if settled is not None])
            for (_, outcome), settled in zip(leases, found, strict=True):
                if settled is not None and not settled.repeated:
                    outcomes.of_account(settled.account_id, outcome)
        for item in ended:
            reservation = item.claimed.job.reservation
            if reservation:
                limiter().settle(reservation, _actual(item))
    except LimiterUnavailable as error:
        log.warning("worker.engine_away", error=str(error), deliveries=len(ended))


def _tell(settled: list[Settled]) -> None:
    """Say what changed about accounts. SQL away keeps no job from ending: the flusher writes it later."""
    try:
        pools.tell(settled)
    except DatabaseError as error:
        log.warning("worker.account_change_unwritten", error=type(error).__name__)


def _actual(item: Ended) -> dict[str, int]:
    if item.result.category in REFUSED or item.result.returned:
        return dict.fromkeys([*item.claimed.job.cost, "requests"], 0)
    return dict(item.result.actual)


def give_back(job: Job, lease: str, reservation: str) -> None:
    """Return what was reserved for a delivery that never ran."""
    try:
        if lease:
            accounts().settle(lease, Outcome("unused"))
        if reservation:
            limiter().settle(reservation, dict.fromkeys([*job.cost, "requests"], 0))
    except LimiterUnavailable as error:
        log.warning("worker.engine_away", error=str(error), deliveries=1)


def settle_lost(leases: Sequence[str], reservations: Sequence[str]) -> None:
    """End what deliveries held whose workers are gone: the calls may have been made, so the estimates stand."""
    try:
        accounts().settle_many([(lease, Outcome("unknown")) for lease in leases if lease])
        for reservation in filter(None, reservations):
            limiter().settle(reservation, {})
    except LimiterUnavailable as error:
        log.warning("worker.engine_away", error=str(error), deliveries=len(leases))
