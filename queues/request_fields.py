"""Fields of requests: one description gives both the checked value and the schema (`queues.api.requests`).

A kind reads a value that is not null. It reports what is wrong, with the JSON pointer from the field on where that is
not the field itself, and returns None then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from django.utils.dateparse import parse_datetime

from queues.errors import FieldError
from queues.payloads import mistake_in
from quotas.engine.costs import COUNT_RULE, is_count, is_unit
from quotas.rest.pointers import escape

MAX_TEXT = 1024
Report = Callable[[FieldError], None]


class Kind(Protocol):
    """What the values of a field are."""

    def read(self, value: Any, pointer: str, report: Report) -> Any: ...


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a request. `default`: its value where it is null or left out, or what makes one. `nullable`: it may be
    null."""

    name: str
    kind: Kind
    help: str = ""
    default: Any = None
    required: bool = False
    nullable: bool = True


class Fields(tuple[Field, ...]):
    """The fields of an object, with what `read` needs of them: a bulk reads thousands of objects."""

    by_name: Mapping[str, Field]
    defaults: Mapping[str, Any]
    made: Sequence[tuple[str, Callable[[], Any]]]
    """Defaults that are another object each time."""
    required: Sequence[Field]

    @classmethod
    def of(cls, *fields: Field) -> Fields:
        made = cls(fields)
        made.by_name = {field.name: field for field in fields}
        made.made = [(field.name, field.default) for field in fields if callable(field.default)]
        made.defaults = {field.name: None if callable(field.default) else field.default for field in fields}
        made.required = [field for field in fields if field.required]
        return made

    def lacks_any(self, data: Mapping[str, Any]) -> bool:
        """Whether `data` lacks a required field."""
        return any(field.name not in data or _is_left_out(field, data[field.name]) for field in self.required)


def _is_left_out(field: Field, given: Any) -> bool:
    return given is None and field.nullable


def read(fields: Fields, data: Mapping[str, Any], pointer: str, report: Report) -> dict[str, Any]:
    """The values of all fields. Reports fields that are missing, wrong or unknown, in the order of the fields."""
    values = dict(fields.defaults)
    mistakes: list[FieldError] = []
    known = fields.by_name
    for name, given in data.items():
        field = known.get(name)
        if field is None:
            return _read_in_order(fields, data, pointer, report)
        if not _is_left_out(field, given):
            value = field.kind.read(given, f"{pointer}/{name}", mistakes.append)
            if value is not None:
                values[name] = value
    if mistakes or fields.lacks_any(data):
        return _read_in_order(fields, data, pointer, report)
    for name, make in fields.made:
        if values[name] is None:
            values[name] = make()
    return values


def _read_in_order(fields: Fields, data: Mapping[str, Any], pointer: str, report: Report) -> dict[str, Any]:
    """As `read`, for an object with a mistake."""
    values: dict[str, Any] = {}
    unknown = dict(data)
    for field in fields:
        given = unknown.pop(field.name, _MISSING)
        value = None
        if given is _MISSING or _is_left_out(field, given):
            if field.required:
                report(FieldError(f"{pointer}/{field.name}", "This field is required."))
        else:
            value = field.kind.read(given, f"{pointer}/{field.name}", report)
        if value is None:
            value = field.default() if callable(field.default) else field.default
        values[field.name] = value
    for name in unknown:
        report(FieldError(f"{pointer}/{escape(name)}", "Unknown field."))
    return values


_MISSING = object()


@dataclass(frozen=True, slots=True)
class Text:
    longest: int = MAX_TEXT
    empty: bool = True
    """May it be empty?"""

    def read(self, value: Any, pointer: str, report: Report) -> str | None:
        wrong = self._mistake(value)
        if wrong is None:
            return str(value)
        report(FieldError(pointer, wrong))
        return None

    def _mistake(self, value: Any) -> str | None:
        if not isinstance(value, str):
            return "Must be a string."
        if len(value) > self.longest:
            return f"Must have at most {self.longest:,} characters."
        if "\x00" in value:
            return "Must not contain a NUL character."
        if not value and not self.empty:
            return "Must not be empty."
        try:
            value.encode()
        except UnicodeEncodeError:
            return "Must be valid Unicode."
        return None


@dataclass(frozen=True, slots=True)
class Number:
    """From `low` to `high`; `above`: more than `low`."""

    low: float
    high: float
    above: bool = False

    def read(self, value: Any, pointer: str, report: Report) -> float | None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            report(FieldError(pointer, "Must be a number."))
            return None
        # Compared before any conversion: whole numbers have no end.
        if not self.low <= value <= self.high or (self.above and value == self.low):
            bounds = f"more than {self.low:g} and at most" if self.above else f"from {self.low:g} to"
            report(FieldError(pointer, f"Must be {bounds} {self.high:g}."))
            return None
        return float(value)


@dataclass(frozen=True, slots=True)
class Whole:
    low: int
    high: int

    def read(self, value: Any, pointer: str, report: Report) -> int | None:
        if isinstance(value, bool) or not isinstance(value, int):
            report(FieldError(pointer, "Must be a whole number."))
        elif not self.low <= value <= self.high:
            report(FieldError(pointer, f"Must be from {self.low} to {self.high}."))
        else:
            return value
        return None


@dataclass(frozen=True, slots=True)
class Flag:
    def read(self, value: Any, pointer: str, report: Report) -> bool | None:
        if isinstance(value, bool):
            return value
        report(FieldError(pointer, "Must be true or false."))
        return None


@dataclass(frozen=True, slots=True)
class Choice:
    choices: tuple[str, ...]

    def read(self, value: Any, pointer: str, report: Report) -> str | None:
        if isinstance(value, str) and value in self.choices:
            return value
        report(FieldError(pointer, f"Must be {' or '.join(f'`{choice}`' for choice in self.choices)}."))
        return None


@dataclass(frozen=True, slots=True)
class Moment:
    """A time with its zone."""

    def read(self, value: Any, pointer: str, report: Report) -> datetime | None:
        try:
            moment = parse_datetime(value) if isinstance(value, str) else None
        except ValueError:
            moment = None
        if moment is None:
            report(FieldError(pointer, "Must be a time such as 2030-01-31T12:00:00Z."))
        elif moment.tzinfo is None:
            report(FieldError(pointer, "Must name its time zone, such as a Z at the end."))
        else:
            try:
                return moment.astimezone(UTC)
            except OverflowError:
                report(FieldError(pointer, "Must be in the years 1 to 9999."))
        return None


@dataclass(frozen=True, slots=True)
class Object:
    """An object of any JSON that the databases can store."""

    def read(self, value: Any, pointer: str, report: Report) -> Mapping[str, Any] | None:
        if not isinstance(value, Mapping):
            report(FieldError(pointer, "Must be an object."))
        elif (mistake := mistake_in(dict(value), pointer)) is not None:
            report(mistake)
        else:
            return value
        return None


@dataclass(frozen=True, slots=True)
class Texts:
    """An object of strings, by names that are not empty."""

    def read(self, value: Any, pointer: str, report: Report) -> dict[str, str] | None:
        if not isinstance(value, Mapping):
            report(FieldError(pointer, "Must be an object of strings."))
            return None
        found = {}
        for name, text in value.items():
            if not _is_text(name) or not name:
                report(FieldError(pointer, f"A key's name has 1 to {MAX_TEXT:,} characters."))
            elif not _is_text(text):
                report(FieldError(f"{pointer}/{escape(name)}", f"Must be a string of at most {MAX_TEXT:,} characters."))
            else:
                found[name] = text
        return found


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MAX_TEXT and mistake_in(value, "") is None


@dataclass(frozen=True, slots=True)
class Cost:
    """Units: a number means requests; whole numbers from 0 to 2^53 - 1."""

    def read(self, value: Any, pointer: str, report: Report) -> dict[str, int] | None:
        named = isinstance(value, Mapping)
        cost: dict[str, int] = {}
        for unit, amount in (value if named else {"requests": value}).items():
            if not is_unit(unit):
                report(FieldError(pointer, "A unit's name has 1 to 32 printable characters."))
            elif not is_count(amount):
                report(FieldError(f"{pointer}/{escape(unit)}" if named else pointer, f"Must be {COUNT_RULE}."))
            else:
                cost[unit] = amount
        return cost
