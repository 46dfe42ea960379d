"""Denied candidates: why they wait is written on their rows and published for their groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from queues import wait_reasons
from queues.dispatcher.candidates import Candidate
from queues.dispatcher.wait_ledger import Cause
from queues.lifecycle.waiting import defer
from quotas.engine.types import Admission

MIN_RECORDED_WAIT = 1.0
"""Seconds: a job that waits for less stays `pending`; writing each short wait would cost more than the wait."""
CAUSES = {"paused": "reserved for higher priorities or paused"}
"""The engine's reasons where their own name would mislead."""


@dataclass(frozen=True, slots=True)
class Denied:
    """A candidate that was not admitted. `seconds` until it may be; None if only an operator's change helps."""

    candidate: Candidate
    admission: Admission

    @property
    def seconds(self) -> float | None:
        return self.admission.retry_after


def describe(admission: Admission) -> str:
    """In plain words what binds."""
    if admission.bound_by == "limit":
        return f"policy {admission.binding}"
    if admission.disabled:
        return f"pool {admission.binding}: every account is disabled"
    causes = ", ".join(
        f"{count} × {CAUSES.get(reason, reason.replace('_', ' '))}"
        for reason, count in sorted(admission.reasons.items())
    )
    return f"pool {admission.binding}: no account is free ({causes})" if causes else f"pool {admission.binding}"


_CODES = {
    "cooldown": "account_cooldown",
    "breaker_open": "account_breaker",
    "half_open": "account_breaker",
    "probing": "account_breaker",
    "concurrency": "account_concurrency",
    "disabled": "accounts_disabled",
    "paused": "priority_hold",
}


def cause_of(admission: Admission, *, pool_paused: bool) -> Cause:
    """The reason code and the name of what binds; of several causes the one of the most accounts."""
    name = admission.binding or ""
    if admission.bound_by == "limit":
        return "policy_limit", name
    if pool_paused:
        return "pool_paused", name
    if admission.disabled:
        return "accounts_disabled", name
    most = max(admission.reasons.items(), key=lambda item: item[1], default=("", 0))[0]
    # Every other reason is a unit, a model's or a key's limit of the accounts.
    return _CODES.get(most, "account_limit"), name


def record_waits(denied: Sequence[Denied], now: datetime) -> None:
    """Write on the rows of `denied` what binds them and until when, for waits of a second and more."""
    reasons = {
        item.candidate.id: (describe(item.admission), _until(item.seconds, now))
        for item in denied
        if item.seconds is None or item.seconds >= MIN_RECORDED_WAIT
    }
    if reasons:
        defer(reasons, now)


def _until(seconds: float | None, now: datetime) -> str:
    return "" if seconds is None else f", until {now + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%SZ}"


def publish_group_waits(denied: Sequence[Denied]) -> None:
    """Publish the present wait of each group of `denied`."""
    wait_reasons.publish(
        {
            item.candidate.group: wait_reasons.Binding(
                cause_of(item.admission, pool_paused=False)[0],
                describe(item.admission),
                item.admission.binding,
                item.seconds,
            )
            for item in denied
        }
    )
