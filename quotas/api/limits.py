"""`/api/v1/limits/`: check, check-batch, settle, usage, reset."""

from __future__ import annotations

from typing import Any

from django.db.models import Q
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from quotas.api import documents
from quotas.api.check_body import (
    BlockBody,
    CheckBatchBody,
    CheckBody,
    ReportBody,
    ResetBody,
    SettleBody,
    SpentBody,
    outcome,
    question,
    questions,
    subject,
)
from quotas.engine.types import Decision, LimitState
from quotas.errors import IdempotencyConflict, LimiterUnavailable, NetworkDenied, UnknownProject, UnknownUnit
from quotas.models import UsageRollup
from quotas.rest import decisions, problems
from quotas.rest.caller import Caller, caller_of, resolve_project, unknown_project
from quotas.rest.fingerprints import fingerprint
from quotas.rest.idempotency import IdempotencyMismatch, idempotency_key
from quotas.rest.pagination import PageQuery, page
from quotas.rest.problems import NotFound, ProblemError
from quotas.rest.reservation_ids import sign, verify
from quotas.rest.serializers import QuerySerializer
from quotas.rest.views import ApiView
from quotas.services import adaptive, limits, outcomes, prepaid
from quotas.services import usage as usage_service
from quotas.services.limits import Check, Token
from quotas.services.usage import Selection
from quotas.times import rfc3339


class CheckView(ApiView):
    """May this be done now? All limits that apply are charged, or none."""

    scopes = {"POST": "check"}

    def asked(self, request: Request) -> tuple[Check, Token]:
        """What the request asks, and its idempotency. Raises what becomes a problem."""
        caller = self.caller
        asked = question(request.data, caller.project_slug)
        _permit(caller, asked)
        return asked, _token(caller, request)

    @documents.decided(operation_id="check", request=CheckBody, summary="May this be done now?")
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
        responses=documents.CheckBatch,
        parameters=[documents.IDEMPOTENCY_KEY],
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
            decisions = limits.check_many([check for _, check in permitted], actor=caller.name, tokens=tokens)
        except IdempotencyConflict:
            raise IdempotencyMismatch from None
        for (place, check), decision in zip(permitted, decisions, strict=True):
            results[place] = _result(decision, check)
        return Response({"results": results})


class SettleView(ApiView):
    """Tell what a reservation has really used."""

    scopes = {"POST": "check"}

    @extend_schema(
        operation_id="settle", request=SettleBody, responses=documents.Settlement, summary="Settle a reservation"
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
    """Tell how calls went, so that adaptive policies can move."""

    scopes = {"POST": "check"}

    @extend_schema(
        operation_id="report_outcome", request=ReportBody, responses=documents.Heard, summary="Tell how calls went"
    )
    def post(self, request: Request) -> Response:
        body, caller = self.body(ReportBody), self.caller
        asked = subject(body, caller.project_slug)
        _permit(caller, asked)
        try:
            heard = outcomes.report(asked, outcome(body), body["count"])
        except (UnknownProject, NetworkDenied) as error:
            raise decisions.refusal(error) from None
        return Response({"heard": heard})


class BlocksView(ApiView):
    """Take a block of units to spend in the client's own memory."""

    scopes = {"POST": "check"}

    @extend_schema(
        operation_id="take_block", request=BlockBody, responses={201: documents.Block}, summary="Take units ahead"
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
        lease = {
            "id": f"{body['unit']}.{sign(block.id, asked.project)}",
            "units": block.units,
            "unit": body["unit"],
            "expires_in": round(block.expires_in, 6),
        }
        return Response(lease, 201, headers=decisions.headers_of(block.decision))


class BlockView(ApiView):
    """Give a block back: what was not spent is refunded."""

    scopes = {"DELETE": "check"}

    @extend_schema(
        operation_id="give_block_back", request=SpentBody, responses=documents.BlockEnd, summary="Refund what is left"
    )
    def delete(self, request: Request, lease: str) -> Response:
        body = self.body(SpentBody)
        unit, _, told = lease.rpartition(".")
        reservation = verify(told, self.caller)
        try:
            settled = prepaid.give_back(reservation, {unit: body["spent"]}) if unit and reservation else None
        except LimiterUnavailable as error:
            raise decisions.refusal(error) from None
        if settled is None:
            raise NotFound("The lease is unknown or has expired; nothing was changed.", "unknown-lease")
        refunded = max(settled.refunded.get(unit, 0), 0)
        return Response({"id": lease, "spent": settled.actual.get(unit, 0), "refunded": refunded})


class UsageQuery(QuerySerializer):
    policy = serializers.CharField(required=False, max_length=63)
    scope = serializers.ChoiceField(
        required=False, choices=["ip", "user", "project", "endpoint", "queue", "custom", "global"]
    )
    key = serializers.CharField(required=False, max_length=1024, trim_whitespace=False)
    project = serializers.CharField(required=False, max_length=63)
    limit = serializers.IntegerField(default=1000, min_value=1, max_value=10_000)


class UsageView(ApiView):
    """Used, limit and remaining of each key, from the same counters that enforce."""

    scopes = {"GET": "read"}

    @extend_schema(
        operation_id="usage", parameters=[UsageQuery], responses=documents.Usage, summary="Used, limit, remaining"
    )
    def get(self, request: Request) -> Response:
        query = self.query(UsageQuery)
        try:
            states = usage_service.usage(_selection(request, query), most=query["limit"])
        except LimiterUnavailable as error:
            raise decisions.refusal(error) from None
        standings = adaptive.standings()
        return Response({"results": [_usage(state, standings.get(state.policy)) for state in states]})


class HistoryQuery(PageQuery):
    policy = serializers.CharField(required=False, max_length=63)
    scope = serializers.ChoiceField(
        required=False, choices=["ip", "user", "project", "endpoint", "queue", "custom", "global"]
    )
    key = serializers.CharField(required=False, max_length=1024, trim_whitespace=False)
    project = serializers.CharField(required=False, max_length=63)
    resolution = serializers.ChoiceField(choices=["minute", "hour", "day"], default="hour")

    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        fields = super().get_fields()
        fields["from"] = serializers.DateTimeField(required=False)
        fields["to"] = serializers.DateTimeField(required=False)
        return fields

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if "from" in attrs and "to" in attrs and attrs["from"] >= attrs["to"]:
            raise serializers.ValidationError({"to": "Must be after `from`."})
        return attrs


class HistoryView(ApiView):
    """The highest use of each key in each minute, hour or day and how often it was refused, newest first."""

    scopes = {"GET": "read"}

    @extend_schema(
        operation_id="usage_history", parameters=[HistoryQuery], responses=documents.History, summary="Use over time"
    )
    def get(self, request: Request) -> Response:
        query = self.query(HistoryQuery)
        selection = _selection(request, query)
        rows = UsageRollup.objects.select_related("policy").filter(
            resolution=query["resolution"], policy__name__in=[policy.name for policy in selection.policies()]
        )
        if selection.key is not None:
            address = Q(policy__scope="ip", key=selection.subject("ip"))
            rows = rows.filter(address | Q(key=selection.key))
        if selection.project is not None:
            bound = [policy.name for policy in selection.policies() if policy.project == selection.project]
            rows = rows.filter(Q(project=selection.project) | Q(project="", policy__name__in=bound))
        if "from" in query:
            rows = rows.filter(start__gte=query["from"])
        if "to" in query:
            rows = rows.filter(start__lt=query["to"])
        return Response(page(rows, query, _history))


class ResetView(ApiView):
    """Clear counters; audited."""

    scopes = {"POST": "operate"}

    @extend_schema(request=ResetBody, responses=documents.Reset, summary="Clear counters")
    def post(self, request: Request) -> Response:
        body = self.body(ResetBody)
        selection = _selection(request, body)
        if selection.policy is not None and not selection.policies():
            raise NotFound(f"There is no policy {selection.policy!r}, or it is not yours.", "unknown-policy")
        try:
            cleared = usage_service.reset(selection, actor=self.caller.name, reason=body["reason"])
        except LimiterUnavailable as error:
            raise decisions.refusal(error) from None
        return Response({"reset": cleared})


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


def _selection(request: Request, named: dict[str, Any]) -> Selection:
    project = resolve_project(request, named.get("project"))
    slug = project.slug if project is not None else None
    bound = caller_of(request).project is not None
    return Selection(
        policy=named.get("policy"),
        scope=named.get("scope"),
        key=named.get("key"),
        project=slug,
        visible_to=slug if bound else None,
    )


def _history(row: UsageRollup) -> dict[str, Any]:
    return {
        "policy": row.policy.name,
        "scope": row.policy.scope,
        "key": row.key,
        "project": row.project or None,
        "unit": row.policy.unit,
        "start": rfc3339(row.start),
        "used": row.used,
        "denied": row.denied,
        "limit": row.limit,
        "ratio": usage_service.share(row.used, row.policy.capacity(row.limit)),
    }


def _usage(state: LimitState, moved: adaptive.Standing | None) -> dict[str, Any]:
    return {
        "policy": state.policy,
        "scope": state.scope,
        "key": state.key,
        "project": state.partition or None,
        "unit": state.unit,
        "algorithm": state.algorithm,
        "limit": state.limit,
        "used": state.used,
        "remaining": state.remaining,
        "ratio": usage_service.ratio(state),
        "reset_after": round(state.reset_after, 6),
        "adaptive": None if moved is None else _standing(moved),
    }


def _standing(moved: adaptive.Standing) -> dict[str, Any]:
    return {
        "configured": moved.configured,
        "floor": moved.floor,
        "ceiling": moved.ceiling,
        "why": moved.why,
        "since": rfc3339(moved.since),
    }
