"""Checks: who asks, which limits apply, what the limiter says, what is told about it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from quotas import events
from quotas.engine.limits.limiter import CheckRequest
from quotas.engine.types import MAX_COST, Decision, Limit, Settlement
from quotas.errors import LimiterUnavailable, NetworkDenied, UnknownProject, UnknownUnit
from quotas.runtime.connection import limiter, waiting_line
from quotas.services import deferred_settlement, units
from quotas.snapshot import resolve
from quotas.snapshot.patterns import Endpoint


@dataclass(frozen=True, slots=True)
class Check:
    """One question: may this be done now? Whatever is None or empty is not held against limits of its scope."""

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
    """Go past the limits; whoever calls this has made sure that the caller may."""
    routed: Endpoint | None = None
    """The endpoint as a router has it, where that is known: instead of `endpoint` as its text can be read."""

    def limits(self, held: resolve.ConfigSnapshot | None = None) -> tuple[Limit, ...]:
        """The limits that apply. Raises `UnknownProject`, `NetworkDenied`, `BadAddress`."""
        return resolve.resolve(
            project=self.project,
            user=self.user,
            ip=self.ip,
            endpoint=self.routed if self.routed is not None else self.endpoint,
            method=self.method,
            keys=self.keys,
            cost=self.cost,
            held=held,
        )


def text_of(subject: object) -> str | None:
    """A subject as its text: callers in code name users by their keys, which may be numbers or UUIDs."""
    return subject if subject is None or isinstance(subject, str) else str(subject)


def texts_of(keys: Mapping[str, Any] | None) -> dict[str, str]:
    """Custom keys with their subjects as texts; one that is None is not held against any policy."""
    return {name: str(subject) for name, subject in (keys or {}).items() if subject is not None}


def cost_of(cost: object) -> dict[str, int] | None:
    """A cost as code states it, a number of requests or counts by unit; None stays None. Raises `ValueError`."""
    if cost is None:
        return None
    counts: dict[str, Any] = dict(cost) if isinstance(cost, Mapping) else {"requests": cost}
    for unit, count in counts.items():
        if type(count) is not int or not 0 <= count <= MAX_COST:
            raise ValueError(f"{unit}: a cost is a whole number from 0 to 2^53 - 1, not {count!r}")
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
        _tell_bypass(question, limits, actor)
    began = time.perf_counter()
    if question.max_wait and not question.dry_run and not question.bypass:
        decision = waiting_line().check(
            question.limits, max_wait=question.max_wait, token=token.key, token_body=token.body, reserve=reserve
        )
    else:
        decision = limiter().check(
            limits,
            dry_run=question.dry_run,
            bypass=question.bypass,
            token=token.key,
            token_body=token.body,
            reserve=reserve,
        )
    told(question, decision, time.perf_counter() - began)
    return decision


def told(question: Check, decision: Decision, seconds: float) -> None:
    """Emit what is to be told of a decision that took so long. Also called on an event loop: subscribers don't block."""
    if not question.dry_run:
        events.emit(events.LimitsChecked((decision,), seconds))
    if not decision.allowed:
        _tell_denial(question, decision)


Refusal = UnknownProject | NetworkDenied | LimiterUnavailable


def check_many(questions: Sequence[Check], *, actor: str, tokens: Sequence[Token] = ()) -> list[Decision | Refusal]:
    """Each by itself all or nothing, in one round trip. What can't be decided stands in its place as an error.

    Raises `IdempotencyConflict` for the whole batch: its key was sent with other checks.
    """
    answers: list[Decision | Refusal | None] = [None] * len(questions)
    requests: list[tuple[int, CheckRequest]] = []
    held = resolve.snapshot()
    for place, question in enumerate(questions):
        try:
            limits = question.limits(held)
        except (UnknownProject, NetworkDenied) as refusal:
            answers[place] = refusal
            continue
        if question.bypass and not question.dry_run:
            _tell_bypass(question, limits, actor)
        token = tokens[place] if tokens else Token()
        requests.append((place, CheckRequest(limits, question.dry_run, question.bypass, token.key, token.body)))
    began = time.perf_counter()
    decisions = limiter().check_many(request for _, request in requests)
    told = [
        decision
        for (_, request), decision in zip(requests, decisions, strict=True)
        if isinstance(decision, Decision) and not request.dry_run
    ]
    events.emit(events.LimitsChecked(told, time.perf_counter() - began))
    for (place, _), decision in zip(requests, decisions, strict=True):
        answers[place] = decision
        if isinstance(decision, Decision) and not decision.allowed:
            _tell_denial(questions[place], decision)
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


def _tell_denial(question: Check, decision: Decision) -> None:
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


def _tell_bypass(question: Check, limits: Sequence[Limit], actor: str) -> None:
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
