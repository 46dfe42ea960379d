"""How the schema describes what all endpoints share: keys, problems, strict fields."""

from __future__ import annotations

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension, OpenApiSerializerFieldExtension

from quotas.engine.costs import MAX_COST

PROBLEM = {
    "type": "object",
    "description": "RFC 9457.",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "description": "Stable: `/problems/<slug>`."},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "description": "The place of each mistake in bad input.",
            "items": {
                "type": "object",
                "required": ["pointer", "detail"],
                "properties": {"pointer": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
    },
}
_COUNT = {"type": "integer", "minimum": 0, "maximum": MAX_COST}
_UNITS = {"type": "object", "additionalProperties": _COUNT, "maxProperties": 16}


class ApiKeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = "quotas.rest.authentication.ApiKeyAuthentication"
    name = "apiKey"

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
        return {"type": "http", "scheme": "bearer", "description": "`Authorization: Bearer sl_<prefix>_<secret>`"}


class SessionScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = "quotas.rest.authentication.AdminSession"
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
    """Postprocessing: every operation may answer with a problem, and bodies take no members but those listed."""
    schemas = result.setdefault("components", {}).setdefault("schemas", {})
    schemas["Problem"] = PROBLEM
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
