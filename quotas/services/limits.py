"""Checks: the caller's question, the limits that apply, the limiter's decision, and the events about it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from quotas import events
from quotas.engine.costs import check_amounts
from quotas.engine.frozen import quickly_made
from quotas.engine.ids import random_id
from quotas.engine.limits.requests import CheckRequest
from quotas.engine.types import Decision, Limit, Settlement
from quotas.errors import LimiterUnavailable, NetworkDenied, UnknownProject, UnknownUnit
from quotas.runtime.connection import limiter, waiting_checks
from quotas.services import deferred_settlement, unanswered, units
from quotas.snapshot import resolve
from quotas.snapshot.patterns import Endpoint


@quickly_made
@dataclass(frozen=True, slots=True)
class Check:
    """One question: may this be done now? Limits of a scope whose member is None or empty do not apply."""

    project: str | None = None
    user: str | None = None
    ip: str | None = None
    endpoint: str | None = None
    method: str | None = None
    keys: Mapping[str, str] = field(default_factory=dict)
    cost: Mapping[str, int] | None = None
    """By unit; None: what the cost rules say, else 1 request."""
    dry_run: bool = False
    max_wait: float = 0.0
    """Seconds to wait for capacity."""
    bypass: bool = False
    """Go past the limits; the code that sets this has checked that the caller may."""
    routed: Endpoint | None = None
    """The endpoint as a router has it, where that is known: instead of `endpoint` as its text can be read."""

    def limits(self, snapshot: resolve.ConfigSnapshot | None = None) -> tuple[Limit, ...]:
        """The limits that apply. Raises `UnknownProject`, `NetworkDenied`, `BadAddress`."""
        return resolve.limits_for(
            project=self.project,
            user=self.user,
            ip=self.ip,
            endpoint=self.routed if self.routed is not None else self.endpoint,
            method=self.method,
            keys=self.keys,
            cost=self.cost,
            snapshot=snapshot,
        )


def text_of(subject: object) -> str | None:
    """A subject as its text: callers in code name users by their keys, which may be numbers or UUIDs."""
    return subject if subject is None or isinstance(subject, str) else str(subject)


def texts_of(keys: Mapping[str, Any] | None) -> dict[str, str]:
    """Custom keys with their subjects as texts; one that is None matches no policy."""
    return {name: str(subject) for name, subject in (keys or {}).items() if subject is not None}


def cost_of(cost: object) -> dict[str, int] | None:
    """A cost as code states it, a number of requests or counts by unit; None stays None. Raises `ValueError`."""
    if cost is None:
        return None
    counts: dict[str, Any] = dict(cost) if isinstance(cost, Mapping) else {"requests": cost}
    check_amounts(counts)
    return counts


@dataclass(frozen=True, slots=True)
class Token:
    """An idempotency key in its caller's own space, and a digest of the request that it was sent with."""

    key: str = ""
    body: str = ""


def check(question: Check, *, actor: str, token: Token = Token(), reserve: bool | None = None) -> Decision:
    """Decide, and charge all limits or none.

    Raises `UnknownProject`, `NetworkDenied`, `LimiterUnavailable` (a limit's policy refuses without Redis),
    `IdempotencyConflict`.
    """
    limits = question.limits()
    if question.bypass and not question.dry_run:
        _record_bypass(question, limits, actor)
    began = time.perf_counter()
    if question.max_wait and not question.dry_run and not question.bypass:
        decision = _check_waiting(question, token, reserve)
    else:
        decision = limiter().check(
            limits,
            dry_run=question.dry_run,
            bypass=question.bypass,
            token=token.key,
            token_body=token.body,
            reserve=reserve,
        )
    emit_decision(question, decision, time.perf_counter() - began)
    return decision


def _check_waiting(question: Check, token: Token, reserve: bool | None) -> Decision:
    key = token.key or random_id()
    try:
        return waiting_checks().check(
            question.limits, max_wait=question.max_wait, token=key, token_body=token.body, reserve=reserve
        )
    except LimiterUnavailable as error:
        if not token.key:  # with a token of its own the caller may ask again
            unanswered.return_check(question.limits, key, error)
        raise


def emit_decision(question: Check, decision: Decision, seconds: float) -> None:
    """Emit the events of a decision that took `seconds`. Also called on event loops: subscribers do not block."""
    if not question.dry_run:
        events.emit(events.LimitsChecked((decision,), seconds))
    if not decision.allowed:
        _emit_denial(question, decision)


Refusal = UnknownProject | NetworkDenied | LimiterUnavailable


def check_many(questions: Sequence[Check], *, actor: str, tokens: Sequence[Token] = ()) -> list[Decision | Refusal]:
    """Each by itself all or nothing, in one round trip. For a check that could not be decided the list has its error.

    Raises `IdempotencyConflict` for the whole batch: its key was sent with other checks.
    """
    answers: list[Decision | Refusal | None] = [None] * len(questions)
    requests: list[tuple[int, CheckRequest]] = []
    snapshot = resolve.snapshot()
    for place, question in enumerate(questions):
        try:
            limits = question.limits(snapshot)
        except (UnknownProject, NetworkDenied) as refusal:
            answers[place] = refusal
            continue
        if question.bypass and not question.dry_run:
            _record_bypass(question, limits, actor)
        token = tokens[place] if tokens else Token()
        requests.append((place, CheckRequest(limits, question.dry_run, question.bypass, token.key, token.body)))
    began = time.perf_counter()
    decisions = limiter().check_many(request for _, request in requests)
    checked = [
        decision
        for (_, request), decision in zip(requests, decisions, strict=True)
        if isinstance(decision, Decision) and not request.dry_run
    ]
    events.emit(events.LimitsChecked(checked, time.perf_counter() - began))
    for (place, _), decision in zip(requests, decisions, strict=True):
        answers[place] = decision
        if isinstance(decision, Decision) and not decision.allowed:
            _emit_denial(questions[place], decision)
    return [answer for answer in answers if answer is not None]


def settle(reservation: str, actual: Mapping[str, int] | None = None) -> Settlement | None:
    """Refund or charge the difference to what was reserved, release slots; None: unknown or expired.

    Raises `UnknownUnit`, with nothing changed, for a unit that nothing counts and that is not the reservation's.
    """
    try:
        units.check(actual or {})
    except UnknownUnit:
        # A policy may have been removed since.
        units.check(actual or {}, limiter().units_of(reservation))
    return limiter().settle(reservation, actual)


def settle_or_later(reservation: str, actual: Mapping[str, int] | None = None) -> Settlement | None:
    """`settle` for who has done the work already, with units that are known: never raises; None where it is settled
    later, or has expired."""
    found = deferred_settlement.settled(
        f"reservation {reservation[:6]}..", lambda: limiter().settle(reservation, actual)
    )
    return found if isinstance(found, Settlement) else None


def _emit_denial(question: Check, decision: Decision) -> None:
    if question.dry_run:
        return
    for state in decision.limits:
        if state.policy == decision.binding:
            events.emit(
                events.LimitDenied(
                    state.policy, state.scope, state.key, decision.retry_after, project=question.project or ""
                )
            )
            return


def _record_bypass(question: Check, limits: Sequence[Limit], actor: str) -> None:
    """Before the limits are passed: what can't be written down does not happen."""
    names = ", ".join(limit.name for limit in limits)
    project = question.project or ""
    target = f"project:{project}" if project else "platform"
    events.emit(
        events.OperatorActed(
            actor,
            "limit.bypass",
            target,
            after={"user": question.user, "policies": names, "cost": dict(question.cost or {})},
            project=project,
        )
    )
    events.emit(events.LimitBypassed(names, actor, project=project))
