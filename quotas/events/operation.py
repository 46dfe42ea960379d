"""What operators do and see: logins, actions, alerts, notices, the live stream."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quotas.events.bus import Event


@dataclass(frozen=True, slots=True)
class OperatorActed(Event):
    """Somebody changed or steered something. Becomes a row of the audit trail.

    `phase` is `done` where the action is in the same SQL transaction; `intent`, then `done` or `failed`, where it
    happens in Redis only.
    """

    actor: str
    verb: str
    target: str
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None
    reason: str = ""
    phase: str = "done"


@dataclass(frozen=True, slots=True)
class LoginThrottled(Event):
    """Too many failed logins came from `address` or for one name; `limit` says which. `retry_after` is in seconds."""

    limit: str
    address: str
    retry_after: int


@dataclass(frozen=True, slots=True)
class AlertRaised(Event):
    """Something has gone wrong, or has become worse; `subject` says what it is about."""

    alert: str
    kind: str
    subject: str
    severity: str
    summary: str
    count: int


@dataclass(frozen=True, slots=True)
class AlertResolved(Event):
    """What was wrong is over, by itself or because an operator said so."""

    alert: str
    kind: str
    subject: str
    severity: str
    summary: str
    count: int


@dataclass(frozen=True, slots=True)
class NoticeFailed(Event):
    """An alert's notice was not delivered at this try."""

    rule: str
    notice: str
    error: str
    tries: int


@dataclass(frozen=True, slots=True)
class NoticeGivenUp(Event):
    """An alert's notice was not delivered at any of its tries."""

    rule: str
    notice: str
    error: str


@dataclass(frozen=True, slots=True)
class StreamEventsDropped(Event):
    """Live events were dropped, since Redis was unavailable for too long."""

    events: int
