"""The schema of requests, from the descriptions by which `queues.specs` reads them."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import OpenApiParameter
from rest_framework import serializers as s

from queues import request_fields as kinds
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
    match field.kind:
        case kinds.Text(longest, empty):
            return s.CharField(max_length=longest, allow_blank=empty, **options)
        case kinds.Number(low, high):
            return s.FloatField(min_value=low, max_value=high, **options)
        case kinds.Whole(low, high):
            return s.IntegerField(min_value=low, max_value=high, **options)
        case kinds.Flag():
            return s.BooleanField(**options)
        case kinds.Choice(choices):
            return s.ChoiceField(choices=choices, **options)
        case kinds.Moment():
            return s.DateTimeField(**options)
        case kinds.Object():
            return s.DictField(**options)
        case kinds.Texts():
            return s.DictField(child=s.CharField(), **options)
        case kinds.Ids(most):
            return s.ListField(child=s.CharField(), max_length=most, **options)
        case kinds.Reference():
            return s.CharField(**options)
        case kinds.Cost():
            return s.DictField(child=s.IntegerField(), **options)
        case kinds.Priority():
            return s.JSONField(**options)
    raise TypeError(f"The schema has no form of {field.kind!r}.")


JobRequest = type("JobRequest", (s.Serializer,), _declared(FIELDS))
BatchRequest = type(
    "BatchRequest",
    (s.Serializer,),
    _declared(BATCH_FIELDS)
    | {"then": JobRequest(required=False, allow_null=True, help_text="Runs when all have ended, however they did.")},
)


class BulkRequest(s.Serializer):
    batch = BatchRequest(required=False, allow_null=True)
    jobs = JobRequest(many=True, min_length=1, max_length=MAX_BULK)
