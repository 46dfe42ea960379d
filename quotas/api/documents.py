"""Shapes of answers, for the schema."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import serializers as s

F = TypeVar("F", bound=Callable[..., Any])
IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key",
    str,
    OpenApiParameter.HEADER,
    description="The same key and body within ten minutes: charged once, answered alike. Another body: 409.",
)
_HEADERS = ("RateLimit-Policy", "RateLimit", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")


class LimitState(s.Serializer[Any]):
    policy = s.CharField()
    scope = s.CharField()
    key = s.CharField(help_text="The address, user, project, pattern, queue or key's value; `*` for global.")
    unit = s.CharField()
    algorithm = s.CharField()
    limit = s.IntegerField(allow_null=True, help_text="null: not limited; 0: refuses all.")
    remaining = s.IntegerField(allow_null=True, help_text="After this check; on denial, now.")
    reset_after = s.FloatField(help_text="Seconds.")
    mode = s.ChoiceField(choices=["enforce", "shadow"])
    allowed = s.BooleanField()


class Decision(s.Serializer[Any]):
    allowed = s.BooleanField()
    retry_after = s.FloatField(allow_null=True, help_text="Seconds until the same request would pass; null: never.")
    binding = s.CharField(allow_null=True, help_text="The policy that binds.")
    degraded = s.BooleanField(help_text="Decided without Redis.")
    bypassed = s.BooleanField()
    reservation = s.CharField(allow_null=True, help_text="To settle, where the cost is an estimate.")
    limits = LimitState(many=True)


class Denial(Decision):
    type = s.CharField(help_text="`/problems/quota-exceeded`")
    title = s.CharField()
    status = s.IntegerField()
    detail = s.CharField()

    def get_fields(self) -> dict[str, s.Field[Any, Any, Any, Any]]:
        fields = super().get_fields()
        fields["violated-policies"] = s.ListField(child=s.CharField())
        return fields


class FieldError(s.Serializer[Any]):
    pointer = s.CharField(help_text="A JSON pointer, such as `#/project`.")
    detail = s.CharField()


class BatchItem(Denial):
    status = s.IntegerField(help_text="200, 403, 404, 422, 429 or 503.")

    def get_fields(self) -> dict[str, s.Field[Any, Any, Any, Any]]:
        """A decision, or the problem of a check that could not be decided: only what both have is always there."""
        fields = super().get_fields()
        fields["errors"] = FieldError(many=True)
        for name, field in fields.items():
            field.required = name in ("allowed", "status")
        return fields


class CheckBatch(s.Serializer[Any]):
    results = BatchItem(many=True)


class Settlement(s.Serializer[Any]):
    reservation = s.CharField()
    actual = s.DictField(child=s.IntegerField())
    refunded = s.DictField(child=s.IntegerField(), help_text="Negative: charged in addition.")


class Block(s.Serializer[Any]):
    id = s.CharField()
    units = s.IntegerField(help_text="Near the limit fewer than asked.")
    unit = s.CharField()
    expires_in = s.FloatField(help_text="Seconds.")


class BlockEnd(s.Serializer[Any]):
    id = s.CharField()
    spent = s.IntegerField()
    refunded = s.IntegerField()


class Standing(s.Serializer[Any]):
    configured = s.IntegerField(help_text="The limit as it is written down; `limit` is where it is now.")
    floor = s.IntegerField()
    ceiling = s.IntegerField()
    why = s.CharField(help_text="Why it moved last; empty where it has not.")
    since = s.DateTimeField(allow_null=True)


class UsageRow(s.Serializer[Any]):
    policy = s.CharField()
    scope = s.CharField()
    key = s.CharField()
    project = s.CharField(allow_null=True)
    unit = s.CharField()
    algorithm = s.CharField()
    limit = s.IntegerField(allow_null=True)
    used = s.IntegerField()
    remaining = s.IntegerField(allow_null=True)
    ratio = s.FloatField(allow_null=True)
    reset_after = s.FloatField()
    adaptive = Standing(allow_null=True)


class Usage(s.Serializer[Any]):
    results = UsageRow(many=True)


class CountedPolicies(s.Serializer[Any]):
    policies = s.ListField(child=s.CharField(), help_text="Adaptive policies that it counts for.")


class HistoryRow(s.Serializer[Any]):
    policy = s.CharField()
    scope = s.CharField()
    key = s.CharField()
    project = s.CharField(allow_null=True)
    unit = s.CharField()
    start = s.DateTimeField()
    used = s.IntegerField(help_text="The highest that was seen.")
    denied = s.IntegerField(help_text="Checks that the policy refused; in shadow mode, would have refused.")
    limit = s.IntegerField(allow_null=True)
    ratio = s.FloatField(allow_null=True)


class History(s.Serializer[Any]):
    results = HistoryRow(many=True)
    next = s.CharField(allow_null=True)


class Reset(s.Serializer[Any]):
    reset = s.IntegerField(help_text="Counters that were cleared.")


class AcquiredAccount(s.Serializer[Any]):
    lease = s.CharField()
    account = s.CharField(help_text="Its name.")
    account_id = s.CharField()
    pool = s.CharField(help_text="The pool of the account: a fallback if the first pool had none.")
    base_url = s.CharField()
    expires_in = s.FloatField(help_text="Seconds.")


class LeaseEnd(s.Serializer[Any]):
    lease = s.CharField()
    outcome = s.CharField(help_text="`ok` or a category.")
    cooldown = s.FloatField(help_text="Seconds.")
    learned = s.DictField(help_text="Quota read from the answer's header fields.")


class Account(s.Serializer[Any]):
    id = s.CharField()
    name = s.CharField()
    pool = s.CharField()
    state = s.ChoiceField(choices=["available", "cooling_down", "open", "half_open", "disabled", "paused"])
    until = s.DateTimeField(allow_null=True)
    why = s.CharField()
    health = s.FloatField(help_text="0 to 1.")
    successes = s.IntegerField()
    skips = s.DictField(child=s.IntegerField(), help_text="By reason.")
    in_flight = s.IntegerField()
    concurrency = s.IntegerField(allow_null=True)
    learned = s.DictField(
        help_text="Quota by unit as the provider states it; in a member `models` the same by model or resource."
    )
    models = s.DictField(child=s.DateTimeField(), help_text="Models that were refused, each until when.")
    latency = s.FloatField(allow_null=True)
    last_used = s.DateTimeField(allow_null=True)
    last_error = s.CharField()
    last_error_at = s.DateTimeField(allow_null=True)

    def get_fields(self) -> dict[str, s.Field[Any, Any, Any, Any]]:
        fields = super().get_fields()
        # A serializer has an attribute of that name already.
        fields["errors"] = s.DictField(child=s.IntegerField(), help_text="By category.")
        return fields


class LastAnswer(s.Serializer[Any]):
    at = s.DateTimeField()
    status = s.IntegerField()
    outcome = s.CharField(help_text="`ok` or a category.")
    headers = s.DictField(child=s.CharField(), help_text="Those about limits, redacted.")


class AccountDetail(Account):
    last_answer = LastAnswer(allow_null=True)


class Accounts(s.Serializer[Any]):
    results = Account(many=True)
    next = s.CharField(allow_null=True)


class Pool(s.Serializer[Any]):
    name = s.CharField()
    provider = s.CharField()
    dialect = s.CharField()
    strategy = s.CharField()
    state = s.ChoiceField(choices=["available", "limited", "paused", "disabled"])
    why = s.CharField()
    available = s.IntegerField(help_text="Accounts that can be acquired now.")
    fallback = s.ListField(child=s.CharField(), help_text="Those that the caller may use.")
    projects = s.ListField(
        child=s.CharField(), allow_null=True, required=False, help_text="Who may use it; null: all. For platform keys."
    )
    accounts = Account(many=True)


class Pools(s.Serializer[Any]):
    results = Pool(many=True)
    next = s.CharField(allow_null=True)


class ExplainedAccount(s.Serializer[Any]):
    id = s.CharField()
    name = s.CharField()
    pool = s.CharField()
    available = s.BooleanField()
    chosen = s.BooleanField()
    why = s.CharField()
    retry_after = s.FloatField(allow_null=True)
    until = s.DateTimeField(allow_null=True)
    health = s.FloatField()


class PoolExplanation(s.Serializer[Any]):
    pool = s.CharField()
    status = s.IntegerField(help_text="As `acquire` would answer: 200, 422, 429 or 503.")
    chosen = s.CharField(allow_null=True)
    chosen_pool = s.CharField(allow_null=True, help_text="A fallback's where the pool itself has no account.")
    retry_after = s.FloatField(allow_null=True)
    accounts = ExplainedAccount(many=True)


_DECIDED = {
    (200, "application/json"): OpenApiResponse(Decision, description=f"Allowed. Header fields: {', '.join(_HEADERS)}."),
    (422, "application/problem+json"): OpenApiResponse(Denial, description="The cost could never pass."),
    (429, "application/problem+json"): OpenApiResponse(Denial, description="Denied; with `Retry-After`."),
}


def decided(**kwargs: Any) -> Callable[[F], F]:
    """`extend_schema` for a check."""
    return extend_schema(responses=_DECIDED, parameters=[IDEMPOTENCY_KEY], **kwargs)
