"""A decision as HTTP: status, members, header fields (RFC 9457, RFC 9651, draft-ietf-httpapi-ratelimit-headers)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, Literal

import http_sf

from quotas.engine import types
from quotas.errors import LimiterUnavailable, NetworkDenied, UnknownProject
from quotas.rest.pointers import FieldError
from quotas.rest.problems import Problem, ProblemError
from quotas.rest.reservation_ids import sign
from quotas.shapes import Member, Shape, field

MAX_SF_INTEGER = 999_999_999_999_999
"""The greatest integer of a structured field (RFC 9651, 3.3.1)."""
MAX_FIELDS = 20
"""Policies that are named in `RateLimit-Policy`; more are in the body."""


class LimitState(Shape):
    policy: str
    scope: str
    key: str = field(help="The address, user, project, pattern, queue or key's value; `*` for global.")
    unit: str
    algorithm: str
    limit: int | None = field(help="null: not limited; 0: refuses all.")
    remaining: int | None = field(help="After this check; on denial, now.")
    reset_after: float = field(digits=6, help="Seconds.")
    mode: Literal["enforce", "shadow"]
    allowed: bool


class Decision(Shape):
    """The members that an allowed and a denied answer share."""

    allowed: bool
    retry_after: float | None = field(help="Seconds until the same request would pass; null: never.")
    binding: str | None = field(help="The policy that binds.")
    degraded: bool = field(help="Decided without Redis.")
    bypassed: bool
    reservation: str | None = field(help="To settle, where the cost is an estimate.")
    limits: list[LimitState]


class Denial(Decision, Problem):
    """A problem document with the decision's members."""

    violated_policies: list[str] = field(
        name="violated-policies", required=False, help="Not for a cost that exceeds a limit."
    )


class BatchItem(Denial):
    """A decision, or the problem of a check that could not be decided: only what both have is always there."""

    status: int = field(help="200, 403, 404, 422, 429 or 503.")

    @classmethod
    def members(cls) -> tuple[Member, ...]:
        return tuple(
            replace(member, field=replace(member.field, required=member.name in ("allowed", "status")))
            for member in super().members()
        )


class CheckBatch(Shape):
    results: list[BatchItem]


class Settlement(Shape):
    reservation: str
    actual: dict[str, int]
    refunded: dict[str, int] = field(help="Negative: charged in addition.")


def status_of(decision: types.Decision) -> int:
    """200, 429, or 422 where no wait would help because the cost exceeds a capacity."""
    return 200 if decision.allowed else 422 if decision.impossible else 429


def body_of(decision: types.Decision, project: str | None) -> dict[str, Any]:
    """The answer's body: the members, and for a denial the problem around them; `project` is that of the check."""
    reservation = None if decision.reservation is None else sign(decision.reservation, project)
    if decision.allowed:
        return Decision.of(decision, reservation=reservation)
    if decision.impossible:
        return Denial.of(
            decision,
            reservation=reservation,
            type="/problems/cost-exceeds-limit",
            title="Cost exceeds limit",
            status=422,
            detail=f"The cost is greater than the policy {decision.binding!r} could ever admit.",
        )
    when = (
        "it refuses everything."
        if decision.retry_after is None
        else f"the same request would pass in {decision.retry_after:.3f} s."
    )
    return Denial.of(
        decision,
        reservation=reservation,
        type="/problems/quota-exceeded",
        title="Quota exceeded",
        status=429,
        detail=f"The policy {decision.binding!r} is used up; {when}",
        **{
            "violated-policies": [
                state.policy for state in decision.limits if not state.allowed and state.mode != "shadow"
            ]
        },
    )


def headers_of(decision: types.Decision) -> dict[str, str]:
    """`Retry-After` of a denial, `RateLimit-Policy`, `RateLimit` and the `X-RateLimit-*` trio."""
    headers: dict[str, str] = {}
    retry = None
    if not decision.allowed and not decision.impossible and decision.retry_after is not None:
        retry = whole_seconds(decision.retry_after)
        headers["Retry-After"] = str(retry)
    limiting = [state for state in decision.limits if state.limit is not None and state.mode != "shadow"]
    if not limiting:
        return headers
    first = next((state for state in limiting if state.policy == decision.binding), limiting[0])
    reset = retry if retry is not None else math.ceil(first.reset_after)
    remaining = max(0, first.remaining or 0)
    ordered = [first, *(state for state in limiting if state is not first)][:MAX_FIELDS]
    headers["RateLimit-Policy"] = ", ".join(
        [_policy(state.policy, state.limit or 0, state.unit, state.window) for state in ordered]
    )
    # A limit of 0 has no time at which it is whole.
    until = f";t={_sf(reset)}" if decision.allowed or retry is not None else ""
    headers["RateLimit"] = f"{_name(first.policy)};r={_sf(remaining)}{until}"
    headers["X-RateLimit-Limit"] = str(first.limit)
    headers["X-RateLimit-Remaining"] = str(remaining)
    headers["X-RateLimit-Reset"] = str(reset)
    return headers


def limit_fields(limits: Sequence[types.LimitState]) -> list[tuple[bytes, bytes]]:
    """`RateLimit-Policy` and `RateLimit` of an admitted call, as bytes with their names in lower case."""
    limiting = [state for state in limits if state.limit is not None and state.mode != "shadow"]
    if not limiting:
        return []
    first = limiting[0]
    named = tuple([(state.policy, state.limit or 0, state.unit, state.window) for state in limiting[:MAX_FIELDS]])
    remaining, reset = _sf(max(0, first.remaining or 0)), _sf(math.ceil(first.reset_after))
    return [
        (b"ratelimit-policy", _policies(named)),
        (b"ratelimit", b"%b;r=%d;t=%d" % (_name(first.policy).encode(), remaining, reset)),
    ]


@lru_cache(maxsize=4096)
def _policies(named: tuple[tuple[str, int, str, float], ...]) -> bytes:
    return ", ".join([_policy(*one) for one in named]).encode()


def whole_seconds(seconds: float) -> int:
    """For `Retry-After`: rounded up, at least 1."""
    return max(1, math.ceil(seconds))


@lru_cache(maxsize=4096)
def _policy(name: str, limit: int, unit: str, window: float) -> str:
    """A member of `RateLimit-Policy`. Kept, since serialising one costs as much as the rest of an answer."""
    parameters: dict[str, Any] = {"q": _sf(limit)}
    if unit != "requests":
        parameters["qu"] = unit
    if window:
        parameters["w"] = _sf(math.ceil(window))
    member: list[Any] = [(name, parameters)]
    return http_sf.ser(member)


@lru_cache(maxsize=4096)
def _name(policy: str) -> str:
    """A policy's name as a structured field's string."""
    member: list[Any] = [(policy, {})]
    return http_sf.ser(member)


def _sf(number: int) -> int:
    return min(number, MAX_SF_INTEGER)


def refusal(error: UnknownProject | NetworkDenied | LimiterUnavailable) -> ProblemError:
    """What could not be decided, as a problem."""
    match error:
        case UnknownProject():
            detail = "There is no such project, or it is not yours."
            return ProblemError("unknown-project", "Not found", 404, detail, [FieldError("/project", detail)])
        case NetworkDenied():
            return ProblemError("network-denied", "Network denied", 403, str(error))
        case _:
            return ProblemError(
                "limiter-unavailable",
                "Limiter unavailable",
                503,
                "The limiter does not answer, and a policy that applies refuses then.",
                headers={"Retry-After": str(whole_seconds(error.retry_after))},
                retry_after=error.retry_after,
            )


def settlement(settled: types.Settlement, reservation: str) -> dict[str, Any]:
    """`reservation`: the reservation's id as the caller knows it."""
    return Settlement.of(settled, reservation=reservation)
