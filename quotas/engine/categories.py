"""How a call or an attempt can end, and all that follows from each end."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

Severity = Literal["info", "warning", "critical"]


@dataclass(frozen=True, slots=True)
class _Facts:
    limit: bool = False
    outage: bool = False
    permanent: bool = False
    rejection: bool = False
    unknown: bool = False
    unanswered: bool = False
    severity: Severity = "warning"
    backoff: tuple[float, float] | None = None


class Category(StrEnum):
    """Equal to its name as text, in which form it is stored and sent."""

    OK = "ok", _Facts()
    RATE_LIMITED = "rate_limited", _Facts(limit=True, severity="info", backoff=(60.0, 300.0))
    QUOTA_EXHAUSTED = "quota_exhausted", _Facts(limit=True, backoff=(300.0, 3600.0))
    AUTH = "auth", _Facts(permanent=True, rejection=True, severity="critical")
    """The credential, or the caller behind it, is refused."""
    SERVER = "server", _Facts(outage=True, backoff=(0.5, 4.0))
    NETWORK = "network", _Facts(outage=True, unanswered=True, backoff=(0.5, 4.0))
    TIMEOUT = "timeout", _Facts(outage=True, unanswered=True, backoff=(1.0, 30.0))
    VALIDATION = "validation", _Facts(permanent=True, rejection=True)
    """The request is refused for its content."""
    CODE = "code", _Facts(permanent=True, severity="critical")
    """A fault in the task's own code."""
    POISON = "poison", _Facts(permanent=True, severity="critical")
    """The job ends the process that runs it."""
    LOST = "lost", _Facts()
    """The worker was lost, and what the job had done by then is not known."""
    UNKNOWN = "unknown", _Facts(unknown=True)
    """It is not known how the call ended."""
    UNUSED = "unused", _Facts(unknown=True)
    """The call was never made."""

    _facts: _Facts

    def __new__(cls, value: str, facts: _Facts) -> Category:
        self = str.__new__(cls, value)
        self._value_ = value
        self._facts = facts
        return self

    @classmethod
    def of(cls, text: str) -> Category:
        """The category of that name; `UNKNOWN` for a name that is none."""
        found = cls._value2member_map_.get(text)
        return found if isinstance(found, cls) else cls.UNKNOWN

    @property
    def is_limit(self) -> bool:
        """The provider refused the call by a limit: it did not do it, and will do it later or for another account."""
        return self._facts.limit

    @property
    def is_outage(self) -> bool:
        """The provider or the connection to it failed; whether it did the call is not known."""
        return self._facts.outage

    @property
    def is_unanswered(self) -> bool:
        """No answer came."""
        return self._facts.unanswered

    @property
    def is_account_failure(self) -> bool:
        """It counts against the account: neither a limit nor a mistake in the request."""
        return self._facts.outage or self in (Category.UNKNOWN, Category.AUTH)

    @property
    def is_transient(self) -> bool:
        """Time alone may end the cause: a limit or an outage. Adaptive limits count these as failures."""
        return self._facts.limit or self._facts.outage

    @property
    def is_permanent(self) -> bool:
        """The same attempt would fail in the same way."""
        return self._facts.permanent

    @property
    def is_rejection(self) -> bool:
        """The provider answered without doing the call: the call used a request and nothing else."""
        return self._facts.rejection

    @property
    def refuses_caller(self) -> bool:
        """The provider refused the caller, for any request: by a limit or by the credential."""
        return self._facts.limit or self is Category.AUTH

    @property
    def is_evidence(self) -> bool:
        """It says something about the provider."""
        return not self._facts.unknown

    @property
    def severity(self) -> Severity:
        """Of a dead letter: `critical` where only a person can help, `info` where time alone does."""
        return self._facts.severity

    @property
    def backoff(self) -> tuple[float, float] | None:
        """Seconds: the first and the longest wait before the next attempt. None: waiting alone does not help."""
        return self._facts.backoff


LIMITS = tuple(category.value for category in Category if category.is_limit)
TRANSIENT = tuple(category.value for category in Category if category.is_transient)
UNANSWERED = tuple(category.value for category in Category if category.is_unanswered)
"""What a caller reports of a call that got no answer."""
ACCOUNT_FAILURES = tuple(category.value for category in Category if category.is_account_failure)
OF_ATTEMPTS = tuple(category.value for category in Category if category.is_transient or category.is_permanent)
"""What a task, a job type or a provider can say of a failed attempt."""
OF_DEAD_JOBS = (*OF_ATTEMPTS, Category.LOST.value)
"""What a job can have died of."""
OF_CALLS = (*OF_ATTEMPTS, Category.UNKNOWN.value)
"""What a dialect can read in an answer that is no success."""
