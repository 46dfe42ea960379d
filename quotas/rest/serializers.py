"""Bodies and queries, checked: what is not known is an error, never ignored."""

from __future__ import annotations

from typing import Any, TypeVar

from rest_framework import serializers
from rest_framework.request import Request

from quotas.rest.pointers import FieldError, escape
from quotas.rest.problems import InvalidRequest

S = TypeVar("S", bound="StrictSerializer")


class StrictSerializer(serializers.Serializer[Any]):
    """Refuses members that it has no field for, each with its own pointer, together with all other mistakes."""

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if not isinstance(data, dict):
            raise serializers.ValidationError({"non_field_errors": ["Must be an object."]})
        writable = {name for name, field in self.fields.items() if not field.read_only}
        errors: dict[str, Any] = {name: ["This member is not known."] for name in data if name not in writable}
        value: dict[str, Any] = {}
        try:
            value = super().to_internal_value(data)
        except serializers.ValidationError as error:
            assert isinstance(error.detail, dict)
            errors.update(error.detail)
        if errors:
            raise serializers.ValidationError(errors)
        return value


class QuerySerializer(StrictSerializer):
    """Query parameters; values come as text, so that DRF's own lenient fields are right here."""


def body_of(request: Request, kind: type[S], **kwargs: Any) -> dict[str, Any]:
    """The request's body as `kind` checks it. Raises what the handler makes a 400 with pointers of."""
    serializer = kind(data=request.data, **kwargs)
    serializer.is_valid(raise_exception=True)
    found: dict[str, Any] = serializer.validated_data
    return found


def query_of(request: Request, kind: type[QuerySerializer]) -> dict[str, Any]:
    """The query parameters as `kind` checks them; unknown and repeated ones are errors (400)."""
    given = request.query_params
    errors = [
        FieldError(f"?{escape(name)}", "is given more than once") for name in given if len(given.getlist(name)) > 1
    ]
    serializer = kind(data={name: given[name] for name in given})
    if not serializer.is_valid():
        for name, found in serializer.errors.items():
            messages = found if isinstance(found, list) else [found]
            unknown = name not in serializer.fields
            errors += [
                FieldError(f"?{escape(name)}", "is not known" if unknown else str(message)) for message in messages
            ]
    if errors:
        raise InvalidRequest.of(errors)
    query: dict[str, Any] = serializer.validated_data
    return query
