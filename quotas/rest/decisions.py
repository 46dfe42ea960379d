"""A decision as HTTP: status, members, header fields (RFC 9457, RFC 9651, draft-ietf-httpapi-ratelimit-headers)."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import http_sf

from quotas.engine.types import Decision, Settlement
from quotas.errors import LimiterUnavailable, NetworkDenied, UnknownProject
from quotas.rest.pointers import FieldError
from quotas.rest.problems import ProblemError, document
from quotas.rest.reservation_ids import sign

MAX_SF_INTEGER = 999_999_999_999_999
"""The greatest integer of a structured field (RFC 9651, 3.3.1)."""
MAX_FIELDS = 20
"""Policies that are named in `RateLimit-Policy`; more are in the body."""


def members(decision: Decision, project: str | None) -> dict[str, Any]:
    """The members that an allowed and a denied answer share."""
    reservation = decision.reservation
    return {
        "allowed": decision.allowed,
        "retry_after": decision.retry_after,
        "binding": decision.binding,
        "degraded": decision.degraded,
        "bypassed": decision.bypassed,
        "reservation": None if reservation is None else sign(reservation, project),
        "limits": [
            {
                "policy": state.policy,
                "scope": state.scope,
                "key": state.key,
                "unit": state.unit,
                "algorithm": state.algorithm,
                "limit": state.limit,
                "remaining": state.remaining,
                "reset_after": round(state.reset_after, 6),
                "mode": state.mode,
                "allowed": state.allowed,
            }
            for state in decision.limits
        ],
    }


def status_of(decision: Decision) -> int:
    """200, 429, or 422 where no wait would help because the cost exceeds a capacity."""
    return 200 if decision.allowed else 422 if decision.impossible else 429


def body_of(decision: Decision, project: str | None) -> dict[str, Any]:
    """The answer's body: the members, and for a denial the problem around them; `project` is the one asked about."""
    if decision.allowed:
        return members(decision, project)
    if decision.impossible:
        return document(
            "cost-exceeds-limit",
            "Cost exceeds limit",
            422,
            f"The cost is greater than the policy {decision.binding!r} could ever admit.",
            **members(decision, project),
        )
    when = (
        "it refuses everything."
        if decision.retry_after is None
        else f"the same request would pass in {decision.retry_after:.3f} s."
    )
    violated = [state.policy for state in decision.limits if not state.allowed and state.mode != "shadow"]
    return document(
        "quota-exceeded",
        "Quota exceeded",
        429,
        f"The policy {decision.binding!r} is used up; {when}",
        None,
        **{"violated-policies": violated, **members(decision, project)},
    )


def headers_of(decision: Decision) -> dict[str, str]:
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


def settlement(settled: Settlement, reservation: str) -> dict[str, Any]:
    """`reservation`: the reservation's id as the caller knows it."""
    return {
        "reservation": reservation,
        "actual": dict(settled.actual),
        "refunded": dict(settled.refunded),
    }
