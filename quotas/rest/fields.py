"""Serializer fields that take a JSON type as it is: no "5" for 5, no 1 for true, no text that is quietly trimmed."""

from __future__ import annotations

import math
from typing import Any

from rest_framework import serializers

from quotas.engine.costs import MAX_COST, MAX_UNITS, is_count, is_unit

MAX_SUBJECT = 1024
MAX_SECONDS = 366 * 86400.0


class StrictCharField(serializers.CharField):
    """A JSON string, kept as it is."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("trim_whitespace", False)
        super().__init__(**kwargs)

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class ReasonField(StrictCharField):
    """Why an operator does something: 1 to 500 characters, not blank."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("max_length", 500)
        super().__init__(**kwargs)

    def to_internal_value(self, data: Any) -> str:
        reason = super().to_internal_value(data)
        if not reason.strip():
            self.fail("blank")
        return reason


class StrictBooleanField(serializers.BooleanField):
    """`true` or `false`."""

    def to_internal_value(self, data: Any) -> bool:
        if data is True or data is False:
            return data
        raise serializers.ValidationError("Must be true or false.")


class StrictIntegerField(serializers.IntegerField):
    """A whole number as JSON writes it."""

    def to_internal_value(self, data: Any) -> int:
        if isinstance(data, bool) or not isinstance(data, int):
            raise serializers.ValidationError("Must be a whole number.")
        return data


class SecondsField(serializers.FloatField):
    """A duration in seconds: a finite number, 0 to a year unless bounds are given."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("min_value", 0)
        kwargs.setdefault("max_value", MAX_SECONDS)
        super().__init__(**kwargs)

    def to_internal_value(self, data: Any) -> float:
        if isinstance(data, bool) or not isinstance(data, int | float) or not math.isfinite(data):
            raise serializers.ValidationError("Must be a number of seconds.")
        return float(data)


class CostField(serializers.Field[Any, Any, Any, Any]):
    """A number of requests, or `{unit: whole number}`; 0 to 2^53 - 1 each. Gives a dict."""

    def to_internal_value(self, data: Any) -> dict[str, int]:
        if not isinstance(data, dict):
            return {"requests": self._count(data)}
        if len(data) > MAX_UNITS:
            raise serializers.ValidationError(f"A cost has at most {MAX_UNITS} units.")
        cost, errors = {}, {}
        for unit, count in data.items():
            try:
                if not is_unit(unit):
                    raise serializers.ValidationError("A unit's name has 1 to 32 printable characters.")
                cost[unit] = self._count(count)
            except serializers.ValidationError as error:
                errors[unit] = error.detail
        if errors:
            raise serializers.ValidationError(errors)
        return cost

    def to_representation(self, value: Any) -> Any:
        return value

    @staticmethod
    def _count(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise serializers.ValidationError("Must be a whole number.")
        if not is_count(value):
            raise serializers.ValidationError(f"Must be from 0 to {MAX_COST}.")
        return value


class SubjectsField(serializers.Field[Any, Any, Any, Any]):
    """Custom keys: `{"chat": "-100123"}`, at most 16, strings up to 1,024 characters."""

    def to_internal_value(self, data: Any) -> dict[str, str]:
        if not isinstance(data, dict):
            raise serializers.ValidationError("Must be an object of strings.")
        if len(data) > 16:
            raise serializers.ValidationError("There are at most 16 keys.")
        errors = {}
        for name, value in data.items():
            if not 1 <= len(name) <= 63:
                errors[name] = ["A key's name has 1 to 63 characters."]
            elif not isinstance(value, str):
                errors[name] = ["Must be a string."]
            elif not 1 <= len(value) <= MAX_SUBJECT:
                errors[name] = [f"Must have 1 to {MAX_SUBJECT} characters."]
        if errors:
            raise serializers.ValidationError(errors)
        return dict(data)

    def to_representation(self, value: Any) -> Any:
        return value
