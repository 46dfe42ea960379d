"""How the schema describes what all endpoints share: shapes of answers, keys, problems, strict fields."""

from __future__ import annotations

from datetime import datetime
from functools import cache
from typing import Any, Literal, get_args, get_origin

from drf_spectacular.extensions import OpenApiAuthenticationExtension, OpenApiSerializerFieldExtension
from rest_framework import serializers

from quotas.engine.costs import MAX_COST
from quotas.shapes import Member, Shape

_COUNT = {"type": "integer", "minimum": 0, "maximum": MAX_COST}
_UNITS = {"type": "object", "additionalProperties": _COUNT, "maxProperties": 16}


_FIELDS: dict[Any, type[serializers.Field[Any, Any, Any, Any]]] = {
    str: serializers.CharField,
    int: serializers.IntegerField,
    float: serializers.FloatField,
    bool: serializers.BooleanField,
    datetime: serializers.DateTimeField,
    Any: serializers.JSONField,
}


@cache
def described(shape: type[Shape]) -> type[serializers.Serializer[Any]]:
    """The shape as the schema's generator takes it, for `responses`; answers are made by `shape.of`."""

    def get_fields(self: serializers.Serializer[Any]) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        return {member.name: _field_of(member) for member in shape.members()}  # some have names of its own attributes

    # Without a docstring: one is for readers of the code, and would stand in the schema.
    return type(shape.__name__, (serializers.Serializer,), {"get_fields": get_fields, "__doc__": None})


def _field_of(member: Member) -> serializers.Field[Any, Any, Any, Any]:
    options: dict[str, Any] = {"allow_null": True} if member.nullable else {}
    if not member.field.required:
        options["required"] = False
    if member.field.help:
        options["help_text"] = member.field.help
    if member.field.choices:
        return serializers.ChoiceField(choices=member.field.choices, **options)
    return _field(member.hint, options)


def _field(hint: Any, options: dict[str, Any]) -> serializers.Field[Any, Any, Any, Any]:
    if isinstance(hint, type) and issubclass(hint, Shape):
        return described(hint)(**options)  # type: ignore[arg-type]  # classes are hashable
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Literal:
        return serializers.ChoiceField(choices=parts, **options)
    if origin is list:
        return serializers.ListField(child=_field(parts[0], {}), **options)
    if origin is dict:
        if parts[1] is not Any:
            options["child"] = _field(parts[1], {})
        return serializers.DictField(**options)
    return _FIELDS[hint](**options)


class ApiKeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = "quotas.rest.authentication.ApiKeyAuthentication"
    name = "apiKey"

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
        return {"type": "http", "scheme": "bearer", "description": "`Authorization: Bearer sl_<prefix>_<secret>`"}


class SessionScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = "quotas.rest.authentication.AdminSession"
    match_subclasses = True
    name = "adminSession"

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
        return {"type": "apiKey", "in": "cookie", "name": "sessionid", "description": "The admin's session, for GET."}


class CostShape(OpenApiSerializerFieldExtension):  # type: ignore[no-untyped-call]
    target_class = "quotas.rest.fields.CostField"

    def map_serializer_field(self, auto_schema: Any, direction: Any) -> dict[str, Any]:
        return {"oneOf": [_COUNT, _UNITS]} if direction == "request" else _UNITS


class SubjectsShape(OpenApiSerializerFieldExtension):  # type: ignore[no-untyped-call]
    target_class = "quotas.rest.fields.SubjectsField"

    def map_serializer_field(self, auto_schema: Any, direction: Any) -> dict[str, Any]:
        text = {"type": "string", "minLength": 1, "maxLength": 1024}
        return {"type": "object", "additionalProperties": text, "maxProperties": 16}


class PriorityShape(OpenApiSerializerFieldExtension):  # type: ignore[no-untyped-call]
    target_class = "quotas.api.leases.PriorityField"

    def map_serializer_field(self, auto_schema: Any, direction: Any) -> dict[str, Any]:
        number = {"type": "integer", "minimum": 0, "maximum": 9}
        return {"oneOf": [{"type": "string", "enum": ["high", "normal", "low"]}, number], "default": "normal"}


def finish(result: dict[str, Any], generator: Any, request: Any, public: bool) -> dict[str, Any]:
    """Postprocessing: every operation may answer with a problem (described with the check), and bodies take no members but those listed."""
    schemas = result.setdefault("components", {}).setdefault("schemas", {})
    answer = {
        "description": "What went wrong.",
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    for operations in result["paths"].values():
        for operation in operations.values():
            operation["responses"].setdefault("default", answer)
    for name, schema in schemas.items():
        if name.endswith("Request") and schema.get("type") == "object" and "properties" in schema:
            schema.setdefault("additionalProperties", False)
    return result
