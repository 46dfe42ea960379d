"""`/api/v1/limits/`: check, check-batch, settle, usage, reset."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from quotas.api.check_body import (
    BlockBody,
    CheckBatchBody,
    CheckBody,
    OutcomesBody,
    SettleBody,
    SpentBody,
    outcome,
    question,
    questions,
    subject,
)
from quotas.api.presenters import limits as shapes
from quotas.engine.types import Decision
from quotas.errors import IdempotencyConflict, LimiterUnavailable, NetworkDenied, UnknownProject, UnknownUnit
from quotas.rest import decisions, problems
from quotas.rest.caller import Caller, unknown_project
from quotas.rest.fingerprints import fingerprint
from quotas.rest.idempotency import IdempotencyMismatch, idempotency_key
from quotas.rest.openapi import described
from quotas.rest.problems import NotFound, ProblemError
from quotas.rest.reservation_ids import sign, verify
from quotas.rest.views import ApiView
from quotas.services import limits, outcomes, prepaid
from quotas.services.limits import Check, Token

IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key",
    str,
    OpenApiParameter.HEADER,
    description="The same key and body within ten minutes: charged once, answered alike. Another body: 409.",
)
_HEADERS = ("RateLimit-Policy", "RateLimit", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
_ALLOWED, _DENIED = described(decisions.Decision), described(decisions.Denial)
DECIDED = {
    (200, "application/json"): OpenApiResponse(_ALLOWED, description=f"Allowed. Header fields: {', '.join(_HEADERS)}."),
    (422, "application/problem+json"): OpenApiResponse(_DENIED, description="The cost could never pass."),
    (429, "application/problem+json"): OpenApiResponse(_DENIED, description="Denied; with `Retry-After`."),
    ("default", problems.MEDIA_TYPE): OpenApiResponse(described(problems.Problem), description="What went wrong."),
}


class CheckView(ApiView):
    """May this be done now? All limits that apply are charged, or none."""

    scopes = {"POST": "check"}

    def asked(self, request: Request) -> tuple[Check, Token]:
        """The request's check, and its idempotency. Raises what becomes a problem."""
        caller = self.caller
        asked = question(request.data, caller.project_slug)
        _permit(caller, asked)
        return asked, _token(caller, request)

    @extend_schema(
        operation_id="check",
        request=CheckBody,
        responses=DECIDED,
        parameters=[IDEMPOTENCY_KEY],
        summary="May this be done now?",
    )
    def post(self, request: Request) -> Response:
        asked, token = self.asked(request)
        try:
            decision = limits.check(asked, actor=self.caller.name, token=token)
        except (UnknownProject, NetworkDenied, LimiterUnavailable) as error:
            raise decisions.refusal(error) from None
        except IdempotencyConflict:
            raise IdempotencyMismatch from None
        return _decided(decision, asked)


class CheckBatchView(ApiView):
    """Up to 1,000 checks, each by itself all or nothing, answered in order."""

    scopes = {"POST": "check"}

    @extend_schema(
        operation_id="check_batch",
        request=CheckBatchBody,
        responses=described(decisions.CheckBatch),
        parameters=[IDEMPOTENCY_KEY],
        summary="Many checks, each all or nothing",
    )
    def post(self, request: Request) -> Response:
        caller = self.caller
        asked = questions(request.data, caller.project_slug)
        results: list[dict[str, Any] | None] = [None] * len(asked)
        permitted: list[tuple[int, Check]] = []
        for place, check in enumerate(asked):
            try:
                _permit(caller, check)
                permitted.append((place, check))
            except ProblemError as refused:
                results[place] = {"allowed": False, **refused.document()}
        key = _token(caller, request)
        tokens = [Token(f"{key.key}\n{place}", key.body) for place, _ in permitted] if key.key else []
        try:
            decided = limits.check_many([check for _, check in permitted], actor=caller.name, tokens=tokens)
        except IdempotencyConflict:
            raise IdempotencyMismatch from None
        for (place, check), decision in zip(permitted, decided, strict=True):
            results[place] = _result(decision, check)
        return Response({"results": results})


class SettleView(ApiView):
    """Settle a reservation with its actual use."""

    scopes = {"POST": "check"}

    @extend_schema(
        operation_id="settle",
        request=SettleBody,
        responses=described(decisions.Settlement),
        summary="Settle a reservation",
    )
    def post(self, request: Request) -> Response:
        body = self.body(SettleBody)
        try:
            reservation = verify(body["reservation"], self.caller)
            settled = limits.settle(reservation, body.get("actual")) if reservation else None
        except UnknownUnit as error:
            raise serializers.ValidationError({"actual": {error.unit: [str(error)]}}) from None
        except LimiterUnavailable as error:
            raise decisions.refusal(error) from None
        if settled is None:
            raise NotFound("The reservation is unknown or has expired; nothing was changed.", "unknown-reservation")
        if "outcome" in body:
            outcomes.of_reservation(settled.limits, outcome(body["outcome"]))
        return Response(decisions.settlement(settled, body["reservation"]))


class OutcomesView(ApiView):
    """Report the outcome of calls, so that adaptive policies can move."""

    scopes = {"POST": "check"}

    @extend_schema(
        operation_id="report_outcome",
        request=OutcomesBody,
        responses=described(shapes.CountedPolicies),
        summary="Report how calls went",
    )
    def post(self, request: Request) -> Response:
        body, caller = self.body(OutcomesBody), self.caller
        asked = subject(body, caller.project_slug)
        _permit(caller, asked)
        try:
            policies = outcomes.report(asked, outcome(body), body["count"])
        except (UnknownProject, NetworkDenied) as error:
            raise decisions.refusal(error) from None
        return Response(shapes.CountedPolicies.of(policies=policies))


class BlocksView(ApiView):
    """Take a block of units to spend in the client's own memory."""

    scopes = {"POST": "check"}

    @extend_schema(
        operation_id="take_block",
        request=BlockBody,
        responses={201: described(shapes.Block)},
        summary="Take units ahead",
    )
    def post(self, request: Request) -> Response:
        body, caller = self.body(BlockBody), self.caller
        asked = subject(body, caller.project_slug)
        _permit(caller, asked)
        try:
            block = prepaid.take(asked, body["unit"], body["units"], body["ttl"])
        except (UnknownProject, NetworkDenied, LimiterUnavailable) as error:
            raise decisions.refusal(error) from None
        except prepaid.NotDivisible as error:
            raise ProblemError("not-divisible", "Not divisible", 422, str(error)) from None
        if not block.units:
            return _decided(block.decision, asked)
        signed = f"{body['unit']}.{sign(block.id, asked.project)}"
        lease = shapes.Block.of(id=signed, units=block.units, unit=body["unit"], expires_in=block.expires_in)
        return Response(lease, 201, headers=decisions.headers_of(block.decision))


class BlockView(ApiView):
    """Return a block: what was not spent is refunded."""

    scopes = {"DELETE": "check"}

    @extend_schema(
        operation_id="give_block_back",
        request=SpentBody,
        responses={200: described(shapes.BlockEnd)},
        summary="Refund what is left",
    )
    def delete(self, request: Request, lease: str) -> Response:
        body = self.body(SpentBody)
        unit, _, signed = lease.rpartition(".")
        reservation = verify(signed, self.caller)
        try:
            settled = prepaid.refund_unspent(reservation, {unit: body["spent"]}) if unit and reservation else None
        except LimiterUnavailable as error:
            raise decisions.refusal(error) from None
        if settled is None:
            raise NotFound("The lease is unknown or has expired; nothing was changed.", "unknown-lease")
        refunded = max(settled.refunded.get(unit, 0), 0)
        return Response(shapes.BlockEnd.of(id=lease, spent=settled.actual.get(unit, 0), refunded=refunded))


def _decided(decision: Decision, asked: Check) -> Response:
    return Response(
        decisions.body_of(decision, asked.project),
        decisions.status_of(decision),
        headers=decisions.headers_of(decision),
        content_type=None if decision.allowed else problems.MEDIA_TYPE,
    )


def _permit(caller: Caller, asked: Check) -> None:
    if asked.project is not None and not caller.sees(asked.project):
        raise unknown_project(asked.project)
    if asked.bypass and not caller.may("bypass"):
        raise ProblemError("forbidden", "Forbidden", 403, "This needs the scope 'bypass'.")


def _token(caller: Caller, request: Request) -> Token:
    key = idempotency_key(request)
    if key is None:
        return Token()
    # Each project, and each platform key, has a space of its own.
    space = f"p:{caller.project.pk}" if caller.project is not None else f"k:{caller.key_id}"
    return Token(f"{space}\n{request.path}\n{key}", fingerprint(request.data))


def _result(decision: Decision | limits.Refusal, asked: Check) -> dict[str, Any]:
    if isinstance(decision, Decision):
        return {**decisions.body_of(decision, asked.project), "status": decisions.status_of(decision)}
    return {"allowed": False, **decisions.refusal(decision).document()}
