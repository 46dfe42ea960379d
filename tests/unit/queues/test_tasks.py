"""A task's payload schema comes from its signature and annotations."""

from __future__ import annotations

from typing import Any, Dict, List, Literal  # noqa: UP035

import pytest

from queues.tasks import PayloadSchema


def plain(
    job: Any,
    text: str,
    count: int = 1,
    ratio: float = 0.5,
    flag: bool = False,
    many: list[int] | None = None,
    by_name: dict[str, int] | None = None,
    kind: Literal["a", 3] = "a",
    *,
    anything: Any = None,
    loose=None,  # type: ignore[no-untyped-def]
) -> None: ...


SCHEMA = PayloadSchema(plain)


def wrong(**payload: Any) -> dict[str, str]:
    return {error.pointer: error.detail for error in SCHEMA.errors(payload, "/payload")}


@pytest.mark.parametrize(
    "payload",
    [
        {"text": "x"},
        {"text": "", "count": 0, "ratio": 1, "flag": True, "many": [], "by_name": {}, "kind": 3},
        {"text": "x", "many": None, "by_name": {"a": 1}, "anything": [{}], "loose": True, "ratio": 2.5},
    ],
)
def test_what_fits(payload: dict[str, Any]) -> None:
    assert SCHEMA.errors(payload, "") == []


@pytest.mark.parametrize(
    ("payload", "pointer"),
    [
        ({}, "/payload/text"),
        ({"text": 3}, "/payload/text"),
        ({"text": None}, "/payload/text"),
        ({"text": "x", "count": "1"}, "/payload/count"),
        ({"text": "x", "count": 1.0}, "/payload/count"),
        ({"text": "x", "count": True}, "/payload/count"),
        ({"text": "x", "ratio": True}, "/payload/ratio"),
        ({"text": "x", "ratio": "0.5"}, "/payload/ratio"),
        ({"text": "x", "flag": 1}, "/payload/flag"),
        ({"text": "x", "many": ["1"]}, "/payload/many"),
        ({"text": "x", "many": [True]}, "/payload/many"),
        ({"text": "x", "by_name": {"a": "b"}}, "/payload/by_name"),
        ({"text": "x", "by_name": [1]}, "/payload/by_name"),
        ({"text": "x", "kind": "b"}, "/payload/kind"),
        ({"text": "x", "kind": True}, "/payload/kind"),
        ({"text": "x", "nothing": 1}, "/payload/nothing"),
        ({"text": "x", "job": 1}, "/payload/job"),
    ],
)
def test_each_mistake_is_named_by_its_place(payload: dict[str, Any], pointer: str) -> None:
    found = wrong(**payload)
    assert list(found) == [pointer]
    assert found[pointer]


def test_all_mistakes_are_found_at_once() -> None:
    assert set(wrong(count="x", nothing=1)) == {"/payload/text", "/payload/count", "/payload/nothing"}


def test_keywords_are_open_only_where_the_function_takes_them() -> None:
    def takes(job: Any, **rest: int) -> None: ...

    assert PayloadSchema(takes).errors({"a": 1}, "") == []
    assert [error.pointer for error in PayloadSchema(takes).errors({"job": 1}, "")] == ["/job"]


def test_a_member_with_a_slash_is_pointed_at_as_json_pointers_have_it() -> None:
    assert list(wrong(**{"text": "x", "a/b~c": 1})) == ["/payload/a~1b~0c"]


@pytest.mark.parametrize(
    "function",
    [
        lambda: None,
        lambda *, job: None,
        lambda **job: None,
        lambda job, given, /: None,
    ],
)
def test_what_no_payload_could_call_is_refused_when_it_is_registered(function: Any) -> None:
    with pytest.raises(TypeError):
        PayloadSchema(function)


def test_bare_names_of_containers_take_anything_inside() -> None:
    def bare(job: Any, many: List = (), named: Dict = None) -> None:  # type: ignore[type-arg, assignment]  # noqa: UP006, RUF013
        """Annotated in the old way."""

    schema = PayloadSchema(bare)
    assert schema.errors({"many": [1, "a"], "named": {"a": 1}}, "") == []
    assert [error.pointer for error in schema.errors({"many": {}, "named": []}, "")] == ["/many", "/named"]
