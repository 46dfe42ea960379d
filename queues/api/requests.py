"""The schema of requests, from the descriptions by which `queues.specs` reads them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from drf_spectacular.extensions import OpenApiSerializerFieldExtension
from drf_spectacular.utils import OpenApiParameter
from rest_framework import serializers as s

from queues import request_fields as kinds
from queues import specs
from queues.job_types import http_request
from queues.request_fields import Field
from queues.specs import BATCH_FIELDS, FIELDS, MAX_BULK

IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key",
    str,
    OpenApiParameter.HEADER,
    description="The same key and body: the same answer. Another body: 409.",
)


def _declared(fields: tuple[Field, ...]) -> dict[str, s.Field]:
    return {field.name: _field(field) for field in fields}


def _field(field: Field) -> s.Field:
    options: dict[str, Any] = {"required": field.required, "help_text": field.help}
    if field.nullable and not field.required:
        options["allow_null"] = True
    return _FORMS[type(field.kind)](field.kind, options)


_FORMS: dict[type[kinds.Kind], Callable[[Any, dict[str, Any]], s.Field]] = {
    kinds.Text: lambda kind, options: s.CharField(max_length=kind.longest, allow_blank=kind.empty, **options),
    kinds.Number: lambda kind, options: s.FloatField(min_value=kind.low, max_value=kind.high, **options),
    kinds.Whole: lambda kind, options: s.IntegerField(min_value=kind.low, max_value=kind.high, **options),
    kinds.Flag: lambda kind, options: s.BooleanField(**options),
    kinds.Choice: lambda kind, options: s.ChoiceField(choices=kind.choices, **options),
    kinds.Moment: lambda kind, options: s.DateTimeField(**options),
    http_request.Matching: lambda kind, options: s.RegexField(kind.pattern, **options),
    http_request.Wholes: lambda kind, options: s.ListField(
        child=s.IntegerField(min_value=kind.low, max_value=kind.high), min_length=1, **options
    ),
    kinds.Object: lambda kind, options: s.DictField(**options),
    kinds.Texts: lambda kind, options: s.DictField(child=s.CharField(), **options),
    http_request.Headers: lambda kind, options: s.DictField(child=s.CharField(), **options),
    specs.Ids: lambda kind, options: s.ListField(child=s.CharField(), max_length=kind.most, **options),
    specs.Reference: lambda kind, options: s.CharField(**options),
    kinds.Cost: lambda kind, options: s.DictField(child=s.IntegerField(), **options),
    specs.Priority: lambda kind, options: s.JSONField(**options),
    http_request.Json: lambda kind, options: s.JSONField(**options),
}
"""How the schema shows each kind."""


HttpRequestPayload = type("HttpRequestPayload", (s.Serializer,), _declared(http_request.FIELDS))


class Payload(s.DictField):
    """What a job's type takes."""


class PayloadShape(OpenApiSerializerFieldExtension):  # type: ignore[no-untyped-call]
    """The payload of `http.request`, or of a registered task, which this schema can't know."""

    target_class = "queues.api.requests.Payload"

    def map_serializer_field(self, auto_schema: Any, direction: Any) -> dict[str, Any]:
        known = auto_schema.resolve_serializer(HttpRequestPayload, direction)
        return {"anyOf": [known.ref, {"type": "object", "additionalProperties": {}}]}


JobRequest = type(
    "JobRequest",
    (s.Serializer,),
    _declared(FIELDS) | {"payload": Payload(required=False, help_text="What the type takes.")},
)
BatchRequest = type(
    "BatchRequest",
    (s.Serializer,),
    _declared(BATCH_FIELDS)
    | {"then": JobRequest(required=False, allow_null=True, help_text="Runs when all have ended, however they did.")},
)


class BulkRequest(s.Serializer):
    batch = BatchRequest(required=False, allow_null=True)
    jobs = JobRequest(many=True, min_length=1, max_length=MAX_BULK)
