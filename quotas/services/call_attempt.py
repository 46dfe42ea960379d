"""How one attempt of a call came out: its answer or exception settles the lease of its account."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from quotas.engine.types import CallOutcome
from quotas.errors import PoolDisabled, QuotaError
from quotas.services.account_lease import Lease
from quotas.upstream import response as answers
from quotas.upstream.call import CallFailed, CallRetry

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Attempt(Generic[R]):
    """An attempt's answer or exception, and what it means."""

    outcome: CallOutcome
    response: R | None = None
    error: Exception | None = None

    def finish(self, retry: CallRetry) -> R:
        if self.error is not None:
            raise self.error
        if self.outcome.category == "ok":
            return cast(R, self.response)
        raise CallFailed(self.outcome.category, retry.made, self.response)


def answered(lease: Lease, response: R) -> Attempt[R]:
    """Settle by what `fn` returned, unless it has settled itself."""
    if lease.outcome is None and answers.status_of(response) is not None:
        lease.settle_response(response)
    else:
        lease.end(None)
    assert lease.outcome is not None
    return Attempt(lease.outcome, response)


def failed(lease: Lease, error: Exception) -> Attempt[Any]:
    lease.end(error)
    assert lease.outcome is not None
    return Attempt(lease.outcome, error=error)


def no_account(retry: CallRetry, refusal: QuotaError, last: Attempt[R] | None) -> R:
    """End a call that gets no account, whatever it waits: by its last failure, where it had one."""
    if last is not None and isinstance(refusal, PoolDisabled):
        retry.stop(last.outcome.category)
        return last.finish(retry)
    retry.stop("")
    raise refusal
