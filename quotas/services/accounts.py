"""Acquire and settle accounts for calls."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import structlog

from quotas.engine import dialects as headers
from quotas.engine.account_state import AccountState
from quotas.engine.accounts.view import Explanation
from quotas.engine.errors import LimiterUnavailable
from quotas.engine.ids import random_id
from quotas.engine.limits.waiting import SERVER_PAUSE
from quotas.engine.types import AccountSpec, Admission, AdmitRequest, CallOutcome, PoolSpec, Settled
from quotas.models.encrypted import CredentialUnreadable
from quotas.runtime.connection import accounts
from quotas.services import last_responses, outcomes, shared_credentials, unanswered
from quotas.services.account_changes import find_account, publish_admitted, publish_settled, without_sql
from quotas.snapshot import resolve
from quotas.snapshot.pools import PoolConfig
from quotas.upstream import backoff

CLOCK_MARGIN = 0.005
"""Seconds added to the wait of a refused admission, since clocks are rounded."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Report:
    """How a call went, as its caller reports it.

    `error`, where no answer came: `timeout`, `network`, or `cancelled` where the caller gave up itself.
    """

    status: int | None = None
    headers: object = None
    body: object = None
    usage: Mapping[str, int] | None = None
    error: str = ""
    latency: float | None = None
    target: str = ""
    """Method and path of the request, where they are known."""


def admit(request: AdmitRequest) -> Admission:
    """Admit once, without waiting, and publish what the admission changed. Raises `LimiterUnavailable`: what may have
    been charged then is returned later, except with a token, by which it can be repeated."""
    try:
        admission = accounts().admit(request)
    except LimiterUnavailable as error:
        if not request.token:
            unanswered.return_leases(error)
        raise
    with without_sql():
        publish_admitted((admission,))
    return admission


def request_for(
    name: str,
    cost: Mapping[str, int] | None = None,
    *,
    priority: int = 5,
    key: str = "",
    token: str = "",
    model: str = "",
    without: str = "",
    project: str | None = None,
) -> AdmitRequest:
    """An admission to the pool or, in their order, to its fallbacks, as far as they are for `project` (None: the
    platform). Raises `UnknownPool`."""
    spec = resolve.pool_spec(name, project)
    fallbacks = resolve.fallbacks_of(spec, project)
    return AdmitRequest(
        pool=spec, cost=dict(cost or {}), priority=priority, key=key, token=token, fallbacks=fallbacks, model=model,
        without=without,
    )  # fmt: skip


def acquire(
    name: str,
    cost: Mapping[str, int] | None = None,
    *,
    priority: int = 5,
    key: str = "",
    model: str = "",
    max_wait: float = 0.0,
    project: str | None = None,
) -> Admission:
    """Reserve an account of the pool, waiting up to `max_wait` seconds for one, and for Redis where it does not answer.

    Raises `UnknownPool`, `LimiterUnavailable`.
    """
    deadline = time.monotonic() + max_wait
    while True:
        request = request_for(name, cost, priority=priority, key=key, model=model, project=project)
        admission = admit_within(request, deadline - time.monotonic())
        wait = next_try(admission, deadline - time.monotonic())
        if wait is None:
            return admission
        time.sleep(wait)


def admit_within(request: AdmitRequest, seconds: float) -> Admission:
    """Admit once, waiting up to `seconds` for Redis where it does not answer. Raises `LimiterUnavailable`."""
    repeated = Repeated(request, seconds)
    while True:
        try:
            return admit(repeated.request)
        except LimiterUnavailable as error:
            time.sleep(repeated.pause(error))


class Repeated:
    """An admission that is repeated while Redis does not answer, for up to `seconds`. Its token keeps it from being
    charged twice where only an answer was lost."""

    def __init__(self, request: AdmitRequest, seconds: float) -> None:
        self.request = replace(request, token=random_id()) if seconds > 0 else request
        self._deadline = time.monotonic() + seconds

    def pause(self, error: LimiterUnavailable) -> float:
        """Seconds to sleep before the next try. Raises the error where the time is up; what may have been charged is
        returned then."""
        left = self._deadline - time.monotonic()
        if left > 0:
            return min(left, SERVER_PAUSE)
        if self.request.token:
            unanswered.return_admission(self.request, error)
        raise error


def next_try(admission: Admission, left: float) -> float | None:
    """Seconds to sleep before the next try; None if the answer is final."""
    wait = admission.retry_after
    if admission.allowed or admission.impossible or admission.disabled or wait is None or wait > left:
        return None
    return min(max(wait, 0.0) + CLOCK_MARGIN, max(left, 0.0), backoff.ASK_AGAIN)


def settle(lease: str, report: Report) -> Settled | None:
    """Settle a lease by a report of its call. The first report of a lease counts; None: the lease is unknown."""
    owner = _owner(lease)
    if owner is None:
        return accounts().settle(lease, CallOutcome("unknown"))
    config, account = owner
    return settle_outcome(lease, outcome_of(report, config, account.id))


def settle_outcome(lease: str, outcome: CallOutcome) -> Settled | None:
    """Settle one lease by an outcome; None: the lease is unknown."""
    return settle_outcomes([(lease, outcome)])[0]


def settle_outcomes(pairs: Sequence[tuple[str, CallOutcome]]) -> list[Settled | None]:
    """End accounts' calls, in order: settle in Redis, publish what changed, note the outcome for adaptive policies and
    the provider's last response. None for an unknown lease. Raises `LimiterUnavailable`; settling again is harmless.

    REST, Python and the worker end every call here.
    """
    if len(pairs) == 1:
        results = [accounts().settle(*pairs[0])]  # one round trip where this process admitted the call
    else:
        results = accounts().settle_many(pairs)
    ended = [(settled, outcome) for settled, (_, outcome) in zip(results, pairs, strict=True) if settled is not None]
    follow_up(ended)
    return results


def follow_up(ended: Sequence[tuple[Settled, CallOutcome]]) -> None:
    """What follows from calls that Redis has settled: events, SQL, accounts with the same credential, adaptive
    policies, the provider's last response."""
    with without_sql():
        publish_settled([settled for settled, _ in ended])
        for settled, outcome in ended:
            shared_credentials.follow(settled, outcome)
    for settled, outcome in ended:
        if not settled.repeated:
            outcomes.of_account(settled.account_id, outcome)
            last_responses.note(settled.account_id, outcome)


def nothing_follows(settled: Settled, outcome: CallOutcome, config: resolve.ConfigSnapshot) -> bool:
    """Whether `follow_up` would do nothing: so it is with most calls, and an event loop needs no thread for them."""
    return settled.repeated or (
        outcome.category == "ok"
        and not settled.transition
        and not settled.concurrency
        and not config.adaptive
        and not last_responses.is_due(settled.account_id, outcome)
    )


def outcome_of(report: Report, config: PoolConfig, account_id: str) -> CallOutcome:
    """What the report means in the dialect of the pool's provider; a credential that is echoed is taken out."""
    if report.status is None and report.error == "cancelled":
        outcome = CallOutcome("unknown", latency=report.latency)
    elif report.status is None:
        outcome = headers.failed(report.error, latency=report.latency)
    else:
        outcome = headers.read(
            config.provider.dialect,
            report.status,
            report.headers,
            report.body,
            settings=config.provider.settings,
            secrets=_Secrets(config, account_id),
            latency=report.latency,
        )
    if report.target:
        outcome = replace(outcome, target=report.target)
    return replace(outcome, usage={**outcome.usage, **report.usage}) if report.usage else outcome


@dataclass(frozen=True, slots=True)
class _Secrets:
    """What must not be kept of an answer: the account's credential, decrypted only where something is kept."""

    config: PoolConfig
    account_id: str

    def __iter__(self) -> Iterator[str]:
        sealed = self.config.credentials.get(self.account_id)
        try:
            if sealed is not None:
                yield sealed.reveal()
        except CredentialUnreadable:
            log.error("account.credential_unreadable", account=self.account_id)


def _owner(lease: str) -> tuple[PoolConfig, AccountSpec] | None:
    """The pool and the account of an open lease; None for a lease that is settled or unknown."""
    ids = (account.id for config in resolve.snapshot().pools.values() for account in config.spec.accounts)
    account_id = accounts().owner_of(lease, ids)
    return None if account_id is None else find_account(account_id)


def state_of(spec: PoolSpec, account_id: str) -> AccountState | None:
    return next((state for state in accounts().states(spec) if state.id == account_id), None)


def explain(
    name: str,
    cost: Mapping[str, int] | None = None,
    *,
    priority: int = 5,
    key: str = "",
    model: str = "",
    project: str | None = None,
) -> Explanation:
    """What `acquire` would answer now, and why of each account of the pool and its fallbacks. Raises `UnknownPool`."""
    return accounts().explain(request_for(name, cost, priority=priority, key=key, model=model, project=project))


def facts(state: AccountState) -> dict[str, Any]:
    """For the audit trail."""
    return {"state": state.state, "until": state.until, "why": state.why}
