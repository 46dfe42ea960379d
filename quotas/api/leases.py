"""Acquiring accounts for calls, and settling their leases."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from quotas.api.presenters.accounts import AcquiredAccount, LeaseEnd, no_pool
from quotas.engine.categories import UNANSWERED
from quotas.engine.priorities import PRIORITIES
from quotas.engine.types import Admission
from quotas.errors import LimiterUnavailable, UnknownPool, UnknownUnit
from quotas.rest import decisions
from quotas.rest.fields import CostField, SecondsField, StrictCharField, StrictIntegerField
from quotas.rest.openapi import described
from quotas.rest.problems import NotFound, ProblemError
from quotas.rest.serializers import StrictSerializer
from quotas.rest.views import ApiView
from quotas.services import accounts as pools
from quotas.services import units
from quotas.snapshot import resolve

_MAX_BODY = 1_000_000


class PriorityField(serializers.Field[Any, Any, Any, Any]):
    """`high`, `normal`, `low`, or a whole number from 0 (first) to 9."""

    def to_internal_value(self, data: Any) -> int:
        if isinstance(data, str) and data in PRIORITIES:
            return PRIORITIES[data]
        if type(data) is int and 0 <= data <= 9:
            return data
        raise serializers.ValidationError("Must be high, normal, low or a whole number from 0 to 9.")

    def to_representation(self, value: Any) -> Any:
        return value


class AcquireBody(StrictSerializer):
    cost = CostField(required=False, help_text="Units; a call counts 1 of `requests` unless it says otherwise.")
    priority = PriorityField(default=5)
    max_wait = SecondsField(default=0, max_value=60.0, help_text="Seconds to wait for an account.")
    key = StrictCharField(required=False, max_length=1024, help_text="A chat or conversation.")
    model = StrictCharField(
        required=False, max_length=200, help_text="The provider's model: a refusal of one model does not block another."
    )


class SettleLeaseBody(StrictSerializer):
    status = StrictIntegerField(required=False, min_value=100, max_value=599)
    headers = serializers.DictField(required=False)
    body = StrictCharField(required=False, allow_blank=True, max_length=_MAX_BODY)
    usage = CostField(required=False)
    error = serializers.ChoiceField(required=False, choices=[*UNANSWERED, "cancelled"])
    latency = SecondsField(required=False)
    request = StrictCharField(
        required=False,
        max_length=1024,
        help_text="Method and path, such as `POST /v1/chat`: one that is closed to every account disables none.",
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if "status" not in attrs and "error" not in attrs:
            raise serializers.ValidationError("Give a `status`, or an `error` where no answer came.")
        return attrs


class AcquireView(ApiView):
    """Acquire one of the pool's accounts for a call."""

    scopes = {"POST": "submit"}

    @extend_schema(
        operation_id="acquire", request=AcquireBody, responses=described(AcquiredAccount), summary="Acquire an account"
    )
    def post(self, request: Request, pool: str) -> Response:
        asked = self.asked()
        try:
            admission = pools.acquire(pool, **asked)
        except (UnknownPool, LimiterUnavailable) as error:
            raise self.refused(pool, error) from None
        return self.answer(pool, admission)

    def asked(self) -> dict[str, Any]:
        """The arguments of `pools.acquire` that the body names."""
        body = self.body(AcquireBody)
        return {
            "cost": body.get("cost"),
            "priority": body["priority"],
            "key": body.get("key", ""),
            "model": body.get("model", ""),
            "max_wait": body["max_wait"],
            "project": self.caller.project_slug or None,
        }

    @staticmethod
    def refused(pool: str, error: UnknownPool | LimiterUnavailable) -> ProblemError:
        return no_pool(pool) if isinstance(error, UnknownPool) else decisions.refusal(error)

    @staticmethod
    def answer(pool: str, admission: Admission) -> Response:
        """The lease, or the refusal as a problem."""
        if not admission.allowed:
            raise refusal(pool, admission)
        chosen = resolve.pool_config(admission.pool or pool)
        return Response(AcquiredAccount.of(admission, base_url=chosen.provider.base_url))


class SettleLeaseView(ApiView):
    """Settle a lease by a report of its call; the first report counts."""

    scopes = {"POST": "submit"}

    @extend_schema(
        operation_id="settle_lease",
        request=SettleLeaseBody,
        responses=described(LeaseEnd),
        summary="Report how a call went",
    )
    def post(self, request: Request, lease: str) -> Response:
        body = self.body(SettleLeaseBody)
        report = pools.Report(
            body.get("status"),
            body.get("headers"),
            body.get("body"),
            body.get("usage"),
            body.get("error", ""),
            body.get("latency"),
            body.get("request", ""),
        )
        try:
            units.check(report.usage or {})
            settled = pools.settle(lease, report)
        except UnknownUnit as error:
            raise serializers.ValidationError({"usage": {error.unit: [str(error)]}}) from None
        except LimiterUnavailable as error:
            raise decisions.refusal(error) from None
        if settled is None:
            raise NotFound("The lease is unknown or has expired; nothing was changed.", "unknown-lease")
        return Response(LeaseEnd.of(settled))


def refusal(pool: str, admission: Admission) -> ProblemError:
    """Why no account was acquired, as a problem."""
    reasons = dict(admission.reasons)
    if admission.impossible:
        detail = f"No account of the pool {pool!r} could ever take a call of this cost."
        return ProblemError("cost-exceeds-limit", "Cost exceeds limit", 422, detail)
    if admission.disabled:
        detail = f"Every account of the pool {pool!r} is disabled."
        return ProblemError("pool-disabled", "Pool disabled", 503, detail, reasons=reasons)
    headers, when = {}, "waiting does not help until an operator acts"
    if admission.retry_after is not None:
        headers["Retry-After"] = str(decisions.whole_seconds(admission.retry_after))
        when = f"one is free in {admission.retry_after:.3f} s"
    skipped = ", ".join(f"{count} for {reason}" for reason, count in reasons.items())
    return ProblemError(
        "no-account-available",
        "No account available",
        429,
        f"No account of the pool {pool!r} can take the call; {when}. Passed over: {skipped or 'none'}.",
        headers=headers,
        retry_after=admission.retry_after,
        reasons=reasons,
    )
