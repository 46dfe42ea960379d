"""What a request of a forecast has: one thing that it is about, and changes to try."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drf_spectacular.extensions import OpenApiSerializerFieldExtension
from rest_framework import serializers

from queues.api.requests import JobRequest
from queues.selectors.what_if import Change
from queues.specs import MAX_BULK
from quotas.engine.costs import MAX_COST
from quotas.rest.caller import Caller
from quotas.rest.fields import StrictCharField, StrictIntegerField
from quotas.rest.pointers import FieldError, pointer
from quotas.rest.problems import InvalidRequest, NotFound
from quotas.rest.serializers import QuerySerializer, StrictSerializer
from quotas.services.usage import Selection
from quotas.snapshot import resolve

SELECTORS = ("queue", "batch", "job", "policy", "pool")
MOST_CHANGES = 10
MOST_ACCOUNTS = 1_000


class ForecastQuery(QuerySerializer):
    queue = serializers.CharField(required=False, max_length=63)
    batch = serializers.CharField(required=False, max_length=64)
    job = serializers.CharField(required=False, max_length=64)
    policy = serializers.CharField(required=False, max_length=63)
    key = serializers.CharField(
        required=False, max_length=1024, trim_whitespace=False, help_text="The subject of the policy's counter."
    )
    pool = serializers.CharField(required=False, max_length=63)
    project = serializers.CharField(
        required=False, max_length=63, help_text="Only its jobs; whose counter of the policy. Default: the key's own."
    )


class ShareField(serializers.FloatField):
    """A share above 0, up to 1."""

    def to_internal_value(self, data: Any) -> float:
        if isinstance(data, bool) or not isinstance(data, int | float) or not 0 < data <= 1:
            raise serializers.ValidationError("Must be above 0 and at most 1, or null.")
        return float(data)


class WhatIf(StrictSerializer):
    accounts = serializers.DictField(
        required=False,
        child=StrictIntegerField(min_value=-MOST_ACCOUNTS, max_value=MOST_ACCOUNTS),
        help_text="By pool: how many accounts more, or fewer.",
    )
    limits = serializers.DictField(
        required=False,
        child=StrictIntegerField(min_value=0, max_value=MAX_COST, allow_null=True),
        help_text="By policy: another limit; null does not limit.",
    )
    pause_at = serializers.DictField(
        required=False, child=ShareField(allow_null=True), help_text="By pool: another threshold; null never pauses."
    )


class PlannedJobs(serializers.Field):
    """Jobs as in `POST jobs`, which are read by the same rules."""

    def to_internal_value(self, data: Any) -> list[Any]:
        if not isinstance(data, list) or not 1 <= len(data) <= MAX_BULK:
            raise serializers.ValidationError(f"Must be a list of 1 to {MAX_BULK:,} jobs.")
        return data


class PlannedJobsShape(OpenApiSerializerFieldExtension):  # type: ignore[no-untyped-call]
    target_class = "queues.api.forecast_body.PlannedJobs"

    def map_serializer_field(self, auto_schema: Any, direction: Any) -> dict[str, Any]:
        item = auto_schema.resolve_serializer(JobRequest, direction)
        return {"type": "array", "items": item.ref, "minItems": 1, "maxItems": MAX_BULK}


class ForecastBody(StrictSerializer):
    jobs = PlannedJobs(required=False, help_text="That have not been submitted.")
    queue = StrictCharField(required=False, max_length=63)
    batch = StrictCharField(required=False, max_length=64)
    job = StrictCharField(required=False, max_length=64)
    policy = StrictCharField(required=False, max_length=63)
    key = StrictCharField(required=False, max_length=1024)
    pool = StrictCharField(required=False, max_length=63)
    project = StrictCharField(required=False, max_length=63)
    what_if = WhatIf(required=False, allow_null=True)


def change_of(given: Mapping[str, Mapping[str, Any]], caller: Caller) -> Change:
    """The changes to try. Raises `InvalidRequest` where they are too many, `NotFound` for a pool or policy that does not
    exist or is not the caller's."""
    if sum(map(len, given.values())) > MOST_CHANGES:
        raise InvalidRequest.at("/what_if", f"At most {MOST_CHANGES} changes can be tried at once.")
    slug = caller.project_slug or None
    pools = {name for name, pool in resolve.snapshot().pools.items() if pool.is_open_to(slug)}
    policies = {policy.name for policy in Selection(visible_to=slug).policies()}
    for member, noun, known in (
        ("accounts", "pool", pools),
        ("limits", "policy", policies),
        ("pause_at", "pool", pools),
    ):
        for name in given.get(member, ()):
            if name not in known:
                detail = f"There is no {noun} {name[:80]!r}, or it is not yours."
                where = FieldError(pointer("what_if", member, name), detail)
                raise NotFound(detail, f"unknown-{noun}", [where])
    return Change(**given)
