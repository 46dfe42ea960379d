"""A shape gives the object that is sent, and describes its members for the schema."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import field as datafield
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import pytest

from quotas.shapes import Page, Shape, field

AT = datetime(2026, 12, 31, 23, 59, 59, 250_400, UTC)


@dataclass
class Owner:
    slug: str


@dataclass
class Row:
    uid: str
    owner: Owner
    at: datetime = AT
    ended: datetime | None = None
    share: float = 0.123456
    note: str = ""
    keys: Any = datafield(default_factory=lambda: MappingProxyType({"chat": "1"}))


class Inner(Shape):
    at: datetime
    ended: datetime | None


class Outer(Shape):
    id: str = field("uid")
    owner: str = field("owner.slug")
    share: float = field(digits=2)
    note: str | None = field(blank_is_null=True)
    keys: dict[str, str]
    rows: list[Inner]
    last: Inner | None
    ends: dict[str, datetime]
    from_: datetime = field("at", name="from")
    hidden: int = field(required=False)


def test_members_come_from_the_source_or_from_the_caller() -> None:
    row = Row("r1", Owner("acme"))
    shown = Outer.of(row, rows=(row,), last=None, ends={"a": AT})
    text = "2026-12-31T23:59:59.250Z"
    assert shown == {
        "id": "r1",
        "owner": "acme",
        "share": 0.12,
        "note": None,
        "keys": {"chat": "1"},
        "rows": [{"at": text, "ended": None}],
        "last": None,
        "ends": {"a": text},
        "from": text,
    }
    assert list(shown) == [member.name for member in Outer.members() if member.name != "hidden"]


def test_the_callers_value_is_converted_alike_and_wins() -> None:
    row = Row("r1", Owner("acme"), note="n")
    shown = Outer.of(row, note="", share=0.999, rows=[{"done": 1}], last=row, ends={}, hidden=3, **{"from": AT})
    assert (shown["note"], shown["share"], shown["rows"], shown["hidden"]) == (None, 1.0, [{"done": 1}], 3)
    assert shown["last"]["at"] == shown["from"] == "2026-12-31T23:59:59.250Z"


def test_a_member_that_the_shape_has_not_is_a_mistake() -> None:
    with pytest.raises(TypeError, match="Inner has no members colour"):
        Inner.of(Row("r", Owner("a")), colour="red")


def test_a_source_that_lacks_a_member_is_a_mistake() -> None:
    with pytest.raises(AttributeError, match="rows"):
        Outer.of(Row("r", Owner("a")))


def test_a_source_is_an_attribute_and_no_code() -> None:
    class Odd(Shape):
        id: str = field("uid, print(1)")

    with pytest.raises(ValueError, match="not the name of an attribute"):
        Odd.of(Row("r", Owner("a")))


def test_a_subclass_has_the_members_of_its_bases_first() -> None:
    class More(Inner):
        extra: int
        ended: datetime | None = field("at")

    assert [member.name for member in More.members()] == ["at", "ended", "extra"]
    assert More.of(Row("r", Owner("a")), extra=1)["ended"] is not None
    assert Inner.of(Row("r", Owner("a")))["ended"] is None, "the base is unchanged"


def test_a_page_is_its_rows_and_a_cursor() -> None:
    assert Page.of(results=[1, 2], next=None) == {"results": [1, 2], "next": None}
