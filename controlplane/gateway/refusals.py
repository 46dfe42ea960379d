"""Refusals as the SDKs of a dialect expect them: shape, status, and the time to wait in the fields that they read."""

from __future__ import annotations

import math
from typing import Any

from controlplane.http.response import Answer, rendered
from quotas.api import leases
from quotas.engine.types import Admission, Decision
from quotas.rest import decisions
from quotas.rest.problems import ProblemError

OPENAI = frozenset({"openai", "azure", "groq", "mistral"})
SDK_PATIENCE = 60.0
"""Seconds up to which SDKs follow a stated wait; a longer one they would replace by a short one of their own."""
_OPENAI_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_ANTHROPIC_TYPES = {
    401: "authentication_error", 403: "permission_error", 404: "not_found_error", 413: "request_too_large",
    429: "rate_limit_error", 503: "overloaded_error", 504: "timeout_error",
}  # fmt: skip


def of_admission(admission: Admission, pool: str, project: str | None) -> ProblemError:
    """Why a call was not admitted, as a problem with its exact wait."""
    if admission.bound_by == "pool":
        return leases.refusal(pool, admission)
    decision = Decision(
        allowed=False, limits=admission.limits, retry_after=admission.retry_after, binding=admission.binding,
        impossible=admission.impossible,
    )  # fmt: skip
    body = decisions.body_of(decision, project)
    shown = {name: body.pop(name) for name in ("type", "title", "status", "detail")}
    slug = shown["type"].removeprefix("/problems/")
    headers = decisions.headers_of(decision)
    return ProblemError(slug, shown["title"], shown["status"], shown["detail"], headers=headers, **body)


def answer_of(problem: ProblemError, dialect: str) -> Answer:
    """The problem in the dialect's own shape."""
    wait = problem.extra.get("retry_after")
    headers = dict(problem.headers)
    if isinstance(wait, int | float):
        headers["retry-after-ms"] = str(max(1, math.ceil(wait * 1000)))
    helps = isinstance(wait, int | float) and wait <= SDK_PATIENCE
    if (problem.status in (429, 503) and not helps) or (problem.status < 429 and problem.status != 408):
        headers["x-should-retry"] = "false"
    status = problem.status
    if dialect in OPENAI or dialect == "anthropic":
        status = 400 if status == 422 else status
        return Answer(status, rendered(_shape(problem, status, dialect)), "application/json", headers.items())
    return Answer(status, rendered(problem.document()), "application/problem+json", headers.items())


def _shape(problem: ProblemError, status: int, dialect: str) -> dict[str, Any]:
    if dialect == "anthropic":
        kind = _ANTHROPIC_TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
        return {"type": "error", "error": {"type": kind, "message": problem.detail, "code": problem.slug}}
    kind = _OPENAI_TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": problem.detail, "type": kind, "code": problem.slug, "param": None}}
