"""Settles accounts' leases and callers' reservations with the engine, and retries while Redis is unavailable."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from queues.deliveries import Ended
from queues.models import Job
from quotas import events
from quotas.engine.categories import Category
from quotas.engine.errors import LimiterUnavailable
from quotas.engine.types import CallOutcome
from quotas.runtime.connection import limiter
from quotas.services import accounts


@dataclass(frozen=True, slots=True)
class Settlement:
    """How one delivery is settled: its account's lease and the call's outcome, its reservation and the actual use."""

    lease: str
    outcome: CallOutcome
    reservation: str
    actual: Mapping[str, int]


_unsettled: deque[Settlement] = deque(maxlen=10_000)
"""Settlements that failed while Redis was unavailable, retried when it is back: their slots would be taken until they expire."""


def settle_engine(ended: Sequence[Ended]) -> list[Ended]:
    """Settle the leases and reservations of deliveries that ended. Returns the deliveries, with what settling reports about
    their retries.

    Both calls are idempotent. While Redis is unavailable the job's own end does not wait; `retry_unsettled` does it later.
    """
    opened = settle([
        Settlement(
            item.claimed.job.account_lease, _outcome(item), item.claimed.job.reservation,
            _actual(item),
        )
        for item in ended
        if item.claimed.job.account_lease or item.claimed.job.reservation
    ])  # fmt: skip
    return [_patient(item) if item.claimed.job.account_lease in opened else item for item in ended]


def _patient(item: Ended) -> Ended:
    """A job whose call was the failed probe of an account waits longer than the account: otherwise it, being the oldest,
    would be each of the next probes, and spend all its attempts in one outage."""
    endpoint = item.claimed.endpoint
    if endpoint is None:
        return item
    wait = max(item.result.retry_after or 0.0, endpoint.config.spec.breaker.open_for)
    return Ended(item.claimed, replace(item.result, retry_after=wait))


def _outcome(item: Ended) -> CallOutcome:
    """How the call went, with its request: one job's refusals are those of one request, whatever its attempts."""
    outcome = item.result.upstream or CallOutcome("unknown")
    if outcome.category not in ("ok", "auth"):
        return outcome
    job = item.claimed.job
    return replace(outcome, target=outcome.target or job.type, request=job.uid)


def retry_unsettled() -> int:
    """Settle what could not be settled before; returns how many settlements are left."""
    if _unsettled:
        settlements = list(_unsettled)
        _unsettled.clear()
        settle(settlements)
    return len(_unsettled)


def forget() -> None:
    """Drop what is unsettled, in a forked process: its parent settles it."""
    _unsettled.clear()


def settle(settlements: Sequence[Settlement]) -> set[str]:
    """Settle all of them, or keep them for later if Redis is unavailable. Idempotent. Returns the leases of failed probes, which
    opened their account's breaker again."""
    opened: set[str] = set()
    try:
        leases = [(item.lease, item.outcome) for item in settlements if item.lease]
        if leases:
            settled = accounts.settle_outcomes(leases)
            opened = {one.lease for one in settled if one is not None and one.probe and one.transition == "opened"}
        for item in settlements:
            if item.reservation:
                limiter().settle(item.reservation, item.actual)
    except LimiterUnavailable as error:
        _unsettled.extend(settlements)
        events.emit(events.ServiceUnavailable("settlement", f"{len(settlements)} deliveries", str(error)))
    return opened


def _actual(item: Ended) -> dict[str, int]:
    result = item.result
    category = Category.of(result.category)
    refused = category.is_limit or (category is Category.AUTH and not result.counted)
    if refused or result.returned:
        return dict.fromkeys([*item.claimed.job.cost, "requests"], 0)
    if result.upstream is not None and Category.of(result.upstream.category).is_rejection:
        return {**dict.fromkeys(item.claimed.job.cost.keys() - {"requests"}, 0), **result.actual}
    return dict(result.actual)


def unused(job: Job) -> list[Settlement]:
    """Return all that was reserved for a delivery of the job that never ran."""
    return _of(job, CallOutcome("unused"), dict.fromkeys([*job.cost, "requests"], 0))


def lost(job: Job) -> list[Settlement]:
    """End what a delivery had reserved whose worker is lost: its call may have been made, so the estimate stands."""
    return _of(job, CallOutcome("unknown"), {})


def interrupted(job: Job) -> list[Settlement]:
    """The same for a delivery that its worker could not finish."""
    return _of(job, CallOutcome("unknown", target=job.type, request=job.uid), {})


def _of(job: Job, outcome: CallOutcome, actual: Mapping[str, int]) -> list[Settlement]:
    if not (job.account_lease or job.reservation):
        return []
    return [Settlement(job.account_lease, outcome, job.reservation, actual)]
