"""What is observed of a call while it runs, and the event that reports it at its end."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any

from controlplane.gateway.call import Call
from quotas import events
from quotas.rest.problems import ProblemError

MAX_PATH = 300
MAX_DELAYS = 10
"""Reasons of one wait that are kept."""
_TRACE = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
"""https://www.w3.org/TR/trace-context/#traceparent-header"""
_OUTCOMES = {
    "quota-exceeded": "quota_exceeded", "cost-exceeds-limit": "quota_exceeded", "no-account-available": "no_account",
    "pool-disabled": "no_account", "upstream-timeout": "timeout", "upstream-unreachable": "network",
    "upstream-broken": "network", "limiter-unavailable": "unavailable", "storage-unavailable": "unavailable",
    "too-many-calls": "unavailable",
}  # fmt: skip
_EXPLAINS = ("retry_after", "binding", "violated-policies", "reasons", "limits")
"""Members of a refusal that explain it."""


@dataclass(slots=True)
class Progress:
    """`began` is when the request arrived; durations are in seconds; `answered` is the status that was sent to the caller."""

    began: float
    at: float = field(default_factory=time.time)
    attempts: int = 0
    waited: float = 0.0
    waited_for: list[str] = field(default_factory=list)
    """What delayed the admission, each named once."""
    provider: float = 0.0
    """Time until the heads of the provider's answers."""
    ends_by: float = inf
    """When the provider's timeout ends the present try, by `time.perf_counter`; infinite while the call is not being sent."""
    account: str = ""
    answered: int | None = None
    outcome: str = ""
    actual: Mapping[str, int] = field(default_factory=dict)
    first_byte: float | None = None
    overhead: float | None = None
    is_stream: bool = False
    refusal: dict[str, Any] = field(default_factory=dict)

    @property
    def started(self) -> bool:
        """Whether the answer's head was sent."""
        return self.answered is not None

    def overhead_now(self) -> float:
        """Time since the arrival that neither the provider nor waiting for admission took."""
        return max(0.0, time.perf_counter() - self.began - self.provider - self.waited)

    def delayed_by(self, what: str) -> None:
        """The admission was not possible yet."""
        if what not in self.waited_for and len(self.waited_for) < MAX_DELAYS:
            self.waited_for.append(what)

    def passed(self) -> None:
        """The first byte of the answer's body was passed on."""
        if self.first_byte is None:
            self.first_byte = time.perf_counter() - self.began

    def refused(self, problem: ProblemError) -> None:
        """The call is answered by a problem."""
        self.answered = problem.status
        self.outcome = _OUTCOMES.get(problem.slug, "rejected")
        if self.outcome in ("quota_exceeded", "no_account"):
            self.refusal = {name: problem.extra[name] for name in _EXPLAINS if name in problem.extra}
        self.refusal |= {"code": problem.slug, "detail": problem.detail[:500]}

    def event(self, call: Call) -> events.CallEnded:
        """The call as it ended."""
        found = _TRACE.fullmatch(call.traceparent)
        return events.CallEnded(
            call=call.id, at=self.at, pool=call.target.pool, method=call.method, path=call.target.path[:MAX_PATH],
            model=call.model, user=call.user or "", actor=call.actor, account=self.account, status=self.answered,
            outcome=self.outcome or "unknown", attempts=self.attempts, waited=self.waited,
            seconds=time.perf_counter() - self.began,
            overhead=self.overhead if self.overhead is not None else self.overhead_now(), first_byte=self.first_byte,
            is_stream=self.is_stream, cost=dict(call.cost), actual=dict(self.actual), refusal=self.refusal,
            waited_for=tuple(self.waited_for), trace=found[1] if found else "", project=call.project or "",
        )  # fmt: skip
