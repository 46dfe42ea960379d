"""A call through a pool, tried again while it makes sense: the rules, without any waiting or calling of their own.

`Pool.call` and `Pool.call_async` follow the same `CallRetry`.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog

from quotas.engine.categories import Category
from quotas.engine.costs import check_amounts
from quotas.engine.types import Admission, CallOutcome
from quotas.errors import NoAccountAvailable, QuotaError
from quotas.upstream import backoff

REPORT_AGAIN = 0.5
"""Seconds by which a wait must exceed the reported one to be reported again."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class CallStatus:
    """What an interface may show while a call runs.

    `kind`: `rate_limited` (waits for an account), `retry` (attempt `attempt` of `of` begins in `wait` seconds),
    `recovered` (it went through after that), `given_up`.
    """

    kind: str
    pool: str
    request_id: str
    attempt: int
    of: int
    wait: float = 0.0
    category: str = ""
    account: str = ""

    def __str__(self) -> str:
        name = self.request_id or "call"
        match self.kind:
            case "rate_limited":
                return f"{name}: rate limited, waits {self.wait:.1f} s for an account of {self.pool}"
            case "retry":
                return f"{name}: {self.category}, retry {self.attempt} of {self.of} in {self.wait:.1f} s"
            case "recovered":
                return f"{name}: recovered at attempt {self.attempt}"
            case _:
                return f"{name}: given up after {self.attempt} attempts ({self.category})"


class CallFailed(QuotaError):
    """The call failed and is not tried again."""

    def __init__(self, category: str, attempts: int, response: Any = None) -> None:
        super().__init__(f"{category} after {attempts} attempts")
        self.category = category
        """As the provider's dialect calls it: `rate_limited`, `server`, `auth`, ..."""
        self.attempts = attempts
        self.response = response
        """The last answer, where there was one."""


class UsedAccount(Protocol):
    """The account that an attempt used."""

    account: str
    account_id: str

    def has_another(self) -> bool:
        """Whether another account could be used instead."""


@dataclass(slots=True)
class CallRetry:
    """The retries of one call: what to do after a refused admission, and after an attempt."""

    pool: str
    request_id: str
    attempts: int
    max_wait: float
    on_status: Callable[[CallStatus], object] | None
    made: int = 0
    has_waited: bool = False
    reported_until: float = float("-inf")
    started: float = field(default_factory=time.monotonic)
    refused_by: str = ""
    """The id of the account whose credential was refused for this call."""
    token: str = field(default_factory=lambda: secrets.token_urlsafe(8))
    """Stands for the call with all of its attempts."""

    def left(self) -> float:
        """Seconds of `max_wait` that are left."""
        return max(self.max_wait - (time.monotonic() - self.started), 0.0)

    def wait_for_account(self, admission: Admission) -> float:
        """Seconds to wait for an account. Raises `NoAccountAvailable` where that would take too long."""
        wait = admission.retry_after
        if wait is None or wait > self.left():
            self._report("given_up", category="rate_limited")
            raise NoAccountAvailable(wait, admission.reasons, self.pool)
        self.has_waited = True
        until = time.monotonic() + wait
        if (
            until > self.reported_until + REPORT_AGAIN
        ):  # where many wait for the same moment, most of them wait once more
            self.reported_until = until
            self._report("rate_limited", wait=wait, category="rate_limited")
        return min(wait + 0.005, backoff.ASK_AGAIN)

    def after_attempt(self, outcome: CallOutcome, lease: UsedAccount) -> float | None:
        """None: it is done, well or for good; else the seconds until the next attempt.

        Where a second account refuses as well, that is the call's own end: both refuse the request itself.
        """
        account = lease.account
        self.made += 1
        if outcome.category == "ok":
            if self.has_waited:
                self._report("recovered", account=account)
            return None
        elsewhere = Category.of(outcome.category).is_limit
        if outcome.refuses_account and not self.refused_by and lease.has_another():
            elsewhere, self.refused_by = True, lease.account_id
        wait = 0.0 if elsewhere else backoff.delay(outcome, self.made)
        if wait is None or self.made >= self.attempts:
            self._report("given_up", category=outcome.category, account=account)
            return None
        if elsewhere:
            pass  # that account cools down or is disabled; whether another one is free, or when, admission says
        elif wait > self.left():
            self._report("given_up", category=outcome.category, account=account)
            return None
        self.has_waited = True
        self._report("retry", wait=wait, category=outcome.category, account=account, attempt=self.made + 1)
        return wait

    def stop(self, category: str) -> None:
        """No account will be had, whatever one waits."""
        self._report("given_up", category=category)

    def _report(self, kind: str, *, attempt: int | None = None, **facts: Any) -> None:
        if self.on_status is None:
            return
        number = self.made if attempt is None else attempt
        try:
            self.on_status(CallStatus(kind, self.pool, self.request_id, number, self.attempts, **facts))
        except Exception:  # an observer must not make a call fail, least of all after it was made
            log.exception("call.on_status_failed", pool=self.pool)


def units(cost: Mapping[str, int] | None, tokens: int | None, requests: int | None) -> dict[str, int]:
    """The cost of a call from its short and its long form. Raises `ValueError` where it is no count."""
    named = {"tokens": tokens, "requests": requests}
    asked = {**(cost or {}), **{unit: count for unit, count in named.items() if count is not None}}
    check_amounts(asked)
    return asked
