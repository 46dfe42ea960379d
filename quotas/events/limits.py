"""Limits: checks, denials, and the limiter itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quotas.engine.frozen import quickly_made
from quotas.engine.types import Decision
from quotas.events.bus import Event


@quickly_made
@dataclass(frozen=True, slots=True)
class LimitsChecked(Event):
    """Requests were checked against limits in one call that took `seconds`. Not emitted for dry runs."""

    decisions: Sequence[Decision]
    seconds: float


@dataclass(frozen=True, slots=True)
class LimitDenied(Event):
    """A check was refused. Emitted on the hot path, also by event loops: a subscriber must not block."""

    policy: str
    scope: str
    key: str
    retry_after: float | None


@dataclass(frozen=True, slots=True)
class LimitBypassed(Event):
    """A caller with the `bypass` scope went past a limit."""

    policy: str
    actor: str


@dataclass(frozen=True, slots=True)
class LimiterDegraded(Event):
    """Redis does not answer; limits are enforced in the process or refuse."""

    error: str


@dataclass(frozen=True, slots=True)
class LimiterRecovered(Event):
    """Redis answers again."""

    seconds: float


@dataclass(frozen=True, slots=True)
class SettlementDelayed(Event):
    """Redis did not answer when a reservation or lease was settled; it is settled later."""

    what: str
    error: str


@dataclass(frozen=True, slots=True)
class SettlementLost(Event):
    """A reservation or lease could not be settled in time; what was reserved counts."""

    what: str


@dataclass(frozen=True, slots=True)
class ThresholdCrossed(Event):
    """A policy's use went over a share of its limit, for the first time in its period."""

    policy: str
    key: str
    share: float
    used: int
    limit: int


@dataclass(frozen=True, slots=True)
class LimitAdapted(Event):
    """An adaptive policy's limit has moved, and why. `project` is the one that the policy is bound to."""

    policy: str
    before: int
    after: int
    why: str
