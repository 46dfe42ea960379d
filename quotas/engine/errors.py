"""What can go wrong with a quota. An exception's docstring is its message; its data is on its attributes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quotas.engine.types import Decision


class QuotaError(Exception):
    """A quota could not be checked or kept."""

    def __init__(self, detail: str = "") -> None:
        message = (type(self).__doc__ or "").strip().splitlines()[0]
        super().__init__(f"{message.rstrip('.')}: {detail}" if detail else message)


class LimitExceeded(QuotaError):
    """A limit is used up."""

    def __init__(self, retry_after: float | None = None, decision: Decision | None = None, detail: str = "") -> None:
        super().__init__(detail or (decision.binding or "" if decision else ""))
        self.retry_after = retry_after
        """Seconds until the same request would pass; None when waiting does not help."""
        self.decision = decision


class CostExceedsLimit(QuotaError):
    """The cost is greater than what a limit could ever admit."""

    def __init__(self, decision: Decision | None = None, detail: str = "") -> None:
        super().__init__(detail or (decision.binding or "" if decision else ""))
        self.decision = decision


class LimiterUnavailable(QuotaError):
    """The limiter's server can't be reached and the policy says to refuse then."""

    retry_after: float = 1.0
    leases: tuple[str, ...] = ()
    """Leases of accounts that may have been made though no answer came."""


class NotAsked(LimiterUnavailable):
    """The limiter's server was not called, since it does not answer; so nothing was charged."""


class IdempotencyConflict(QuotaError):
    """The idempotency token was already used for a different request."""


class NoAccountAvailable(QuotaError):
    """No account of the pool can take the call now."""

    def __init__(
        self, retry_after: float | None = None, reasons: Mapping[str, int] | None = None, detail: str = ""
    ) -> None:
        super().__init__(detail)
        self.retry_after = retry_after
        self.reasons = dict(reasons or {})
        """How many accounts were passed over for each reason."""


class PoolDisabled(QuotaError):
    """Every account of the pool is disabled."""
