"""Shapes of JSON objects: one description gives both the object that is sent and its schema.

A shape is a class with annotations. Each annotation is a member of the object: its type decides how the value is written
and what the schema says. The value is the attribute of that name, unless `field` names another one or the caller gives it.

    class JobRow(Shape):
        id: str = field("uid")
        created_at: datetime
        batch: str | None

    JobRow.of(job, batch=None)  # {"id": "...", "created_at": "2026-12-31T23:59:59.250Z", "batch": None}

This module knows neither Django nor REST: workers present jobs for callbacks without loading either.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from types import UnionType
from typing import Any, ClassVar, Union, get_args, get_origin, get_type_hints

from quotas.times import rfc3339

Convert = Callable[[Any], Any]
Present = Callable[[object, dict[str, Any]], dict[str, Any]]
_NOTHING: dict[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Field:
    """What an annotation alone does not say about a member."""

    source: str = ""
    """The attribute, dotted, whose value it is; empty: the one of the same name."""
    help: str = ""
    name: str = ""
    """The member's name where Python has no such name."""
    digits: int | None = None
    """Decimal places that a number is rounded to."""
    blank_is_null: bool = False
    """An empty text is sent as null."""
    choices: tuple[str, ...] = ()
    """The texts that occur, where they are known only at run time; else the type says `Literal`."""
    required: bool = True
    """A member that is not required is sent only where the caller gives it."""


def field(
    source: str = "",
    *,
    help: str = "",
    name: str = "",
    digits: int | None = None,
    blank_is_null: bool = False,
    choices: tuple[str, ...] = (),
    required: bool = True,
) -> Any:
    """Details of a member, written as the annotation's default."""
    return Field(source, help, name, digits, blank_is_null, choices, required)


@dataclass(frozen=True, slots=True)
class Member:
    """One member of a shape. `hint` is its type without None."""

    name: str
    hint: Any
    nullable: bool
    field: Field
    source: str
    convert: Convert | None

    def __post_init__(self) -> None:
        if not all(part.isidentifier() for part in self.source.split(".")):
            raise ValueError(f"{self.source!r} is not the name of an attribute")

    def expression(self, convert: str, given: bool) -> str:
        """The member's value in Python, with `convert` as the name of its converter."""
        value = f"given[{self.name!r}]" if given else f"source.{self.source}"
        if self.field.blank_is_null:
            return f"{value} or None"
        if self.field.digits is not None and not self.nullable:
            return f"round({value}, {self.field.digits})"
        return value if self.convert is None else f"{convert}({value})"


class Shape:
    """Base of all shapes. Shapes are never instantiated."""

    _members: ClassVar[tuple[Member, ...] | None] = None
    _functions: ClassVar[dict[tuple[str, ...], Present]]

    def __init_subclass__(cls) -> None:
        cls._members = None
        cls._functions = {}

    @classmethod
    def of(cls, source: object = None, /, **given: Any) -> dict[str, Any]:
        """The object for `source`. Members that are `given` are taken from there, and converted alike."""
        return cls.function(*given)(source, given)

    @classmethod
    def function(cls, *given: str) -> Present:
        """The function that fills the shape if the caller gives these members."""
        return cls._functions.get(given) or cls._compile(given)

    @classmethod
    def members(cls) -> tuple[Member, ...]:
        """The members in order, those of base classes first."""
        if cls._members is None:
            hints = get_type_hints(cls)
            cls._members = tuple(
                _member(name, hint, getattr(cls, name, Field()))
                for name, hint in hints.items()
                if not name.startswith("_")
            )
        return cls._members

    @classmethod
    def _compile(cls, given: tuple[str, ...]) -> Present:
        """As fast as a literal written by hand, since checks and submitted jobs are presented for every request."""
        members = [member for member in cls.members() if member.field.required or member.name in given]
        if unknown := set(given) - {member.name for member in members}:
            raise TypeError(f"{cls.__name__} has no members {', '.join(sorted(unknown))}")
        values = {f"convert_{number}": member.convert for number, member in enumerate(members)}
        body = ", ".join(
            f"{member.name!r}: {member.expression(f'convert_{number}', member.name in given)}"
            for number, member in enumerate(members)
        )
        # The text is made of declared names only: `Member` checks that sources are attributes.
        function: Present = eval(f"lambda source, given: {{{body}}}", values)  # noqa: S307
        cls._functions[given] = function
        return function


class Page(Shape):
    """Base of lists; each names the shape of its rows."""

    results: list[Any]
    next: str | None = field(help="Cursor of the next page.")


def _member(name: str, hint: Any, details: Field) -> Member:
    nullable = get_origin(hint) in (Union, UnionType)
    if nullable:
        (hint,) = (part for part in get_args(hint) if part is not type(None))
    convert = _number(details.digits) if details.digits is not None else _converter(hint)
    if convert is not None and nullable:
        convert = _unless_none(convert)
    return Member(details.name or name, hint, nullable, details, details.source or name, convert)


def _converter(hint: Any) -> Convert | None:
    """How a value of that type is written; None: as it is."""
    if hint is datetime:
        return rfc3339
    if isinstance(hint, type) and issubclass(hint, Shape):
        return _nested(hint)
    if get_origin(hint) is list:
        return _each(get_args(hint)[0])
    if get_origin(hint) is dict:
        return _values(_converter(get_args(hint)[1]))
    return None


def _nested(shape: type[Shape]) -> Convert:
    present = shape.function()
    return lambda value: value if type(value) is dict else present(value, _NOTHING)


def _each(hint: Any) -> Convert:
    if isinstance(hint, type) and issubclass(hint, Shape):
        present = hint.function()  # and not the converter of one: a call less for each limit of a check
        return lambda values: [value if type(value) is dict else present(value, _NOTHING) for value in values]
    convert = _converter(hint)
    return list if convert is None else lambda values: [convert(value) for value in values]


def _values(convert: Convert | None) -> Convert:
    if convert is None:
        return lambda values: values if type(values) is dict else dict(values)
    return lambda values: {name: convert(value) for name, value in values.items()}


def _number(digits: int) -> Convert:
    return lambda value: round(value, digits)


def _unless_none(convert: Convert) -> Convert:
    return lambda value: None if value is None else convert(value)
