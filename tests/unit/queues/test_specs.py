"""A job's request: each field's mistakes, by pointer."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queues.errors import InvalidJob
from queues.specs import read_job
from quotas.rest.fingerprints import fingerprint

HUGE = 10**399
"""An integer that no float can represent; JSON may."""


def short(value: Any) -> str | None:
    """A parameter's name in the report; pytest makes one of its own where it is short."""
    return "huge" if len(repr(value)) > 60 else None


def pointers(data: Any, pointer: str = "") -> list[str]:
    with pytest.raises(InvalidJob) as caught:
        read_job(data, pointer)
    assert all(error.detail for error in caught.value.errors)
    return [error.pointer for error in caught.value.errors]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("type", value) for value in (None, "", 3, ["x"], "x" * 201, "a\x00", "\ud800", True)],
        *[("queue", value) for value in (3, "q" * 64, {}, "a\x00")],
        *[("priority", value) for value in ("urgent", "", -1, 10, 5.0, True, math.nan, HUGE, [], "High")],
        *[("payload", value) for value in (None, [], "x", 3)],
        *[("project", value) for value in (3, "p" * 64, ["a"])],
        *[("user", value) for value in (3, "u" * 1025, "a\x00", "\udfff")],
        *[
            ("run_at", value)
            for value in ("", "tomorrow", 3, "2030-01-01T00:00:00", "2030-13-01T00:00:00Z", "2030-01-01")
        ],
        *[
            ("run_at", value)
            for value in ("9999-12-31T23:59:59-23:00", "0001-01-01T00:00:00+23:00", "2030-02-30T00:00:00Z")
        ],
        *[("delay", value) for value in (-1, "5", True, math.nan, math.inf, -math.inf, 1e12, HUGE, -HUGE, [])],
        *[("max_attempts", value) for value in (0, -1, 1001, 1.5, "3", True, HUGE)],
        *[("timeout", value) for value in (0, -1, "3", True, math.nan, math.inf, 86401, HUGE)],
        *[("batch", value) for value in (3, [], {}, {"id": 3}, {"id": "x", "name": "y"}, "b" * 65)],
        *[("callback_url", value) for value in (3, "h" * 1001, "http://a\x00")],
        *[("keys", value) for value in ([], "x", 3)],
        *[("delivery", value) for value in ("exactly_once", "", 1, [])],
        *[("after", value) for value in ("x", {}, [1], ["a"] * 1001, [None])],
        *[("unique_for", value) for value in (0, -1, "1", True, math.nan, HUGE, 1e12)],
        *[("unique_key", value) for value in (3, "x" * 256, "no unique_for")],
        *[("idempotency_key", value) for value in ("", 3, "x" * 256, "a\x00")],
        *[("nonsense", value) for value in (None, 1)],
        *[("Type", value) for value in ("x",)],
    ],
    ids=short,
)
def test_a_wrong_field_is_named(name: str, value: Any) -> None:
    data = {"type": "t", name: value}
    assert set(pointers(data)) == {f"/{name}"}
    assert set(pointers(data, "/jobs/7")) == {f"/jobs/7/{name}"}


@pytest.mark.parametrize(
    ("cost", "pointer"),
    [
        ({"tokens": -1}, "/cost/tokens"), ({"tokens": 1.5}, "/cost/tokens"), ({"tokens": math.nan}, "/cost/tokens"),
        ({"tokens": 2**53}, "/cost/tokens"), ({"tokens": HUGE}, "/cost/tokens"), ({"tokens": True}, "/cost/tokens"),
        ({"tokens": None}, "/cost/tokens"), ({"tokens": "1"}, "/cost/tokens"), ({"": 1}, "/cost"),
        ({"u" * 33: 1}, "/cost"), (-1, "/cost"), ("5", "/cost"), ([], "/cost"), (1.0, "/cost"),
        ({"a/b": -1}, "/cost/a~1b"),
    ],
)  # fmt: skip
def test_a_wrong_cost_is_named(cost: Any, pointer: str) -> None:
    assert pointers({"type": "t", "cost": cost}) == [pointer]


@pytest.mark.parametrize("value", [3, None, "x" * 1025, "a\x00", {}, True, "\ud800"])
def test_a_wrong_key_is_named(value: Any) -> None:
    assert pointers({"type": "t", "keys": {"chat": value}}) == ["/keys/chat"]
    assert pointers({"type": "t", "keys": {"a/b": value}}) == ["/keys/a~1b"]


@pytest.mark.parametrize("name", ["", "a\x00", "k" * 1025, "\ud800"])
def test_a_wrong_name_of_a_key_is_an_error(name: str) -> None:
    assert pointers({"type": "t", "keys": {name: "v"}}) == ["/keys"]


@pytest.mark.parametrize(
    ("payload", "pointer"),
    [
        ({"a": math.nan}, "/payload/a"),
        ({"a": [1, {"b": math.inf}]}, "/payload/a/1/b"),
        ({"a": "x\x00y"}, "/payload/a"),
        ({"a": ["\udfff"]}, "/payload/a/0"),
        ({"x\x00": 1}, "/payload"),
        ({"a": object()}, "/payload/a"),
        ({"a": b"bytes"}, "/payload/a"),
    ],
)
def test_a_payload_that_is_no_json_is_named(payload: Any, pointer: str) -> None:
    """Over HTTP the parser refuses these; from Python and from files they come here."""
    assert pointers({"type": "t", "payload": payload}) == [pointer]


def test_a_payload_of_absurd_depth_is_refused() -> None:
    deep: Any = {}
    for _ in range(300):
        deep = {"a": deep}
    assert pointers({"type": "t", "payload": deep}) == ["/payload"]


@pytest.mark.parametrize("data", [None, [], "x", 3, [{"type": "t"}]])
def test_a_job_is_an_object(data: Any) -> None:
    assert pointers(data) == [""]
    assert pointers(data, "/jobs/3") == ["/jobs/3"]


def test_run_at_and_delay_exclude_each_other() -> None:
    assert pointers({"type": "t", "run_at": "2030-01-01T00:00:00Z", "delay": 5}) == ["/delay"]


def test_all_mistakes_are_found_at_once() -> None:
    found = pointers({"type": 3, "delay": -1, "x": 1, "cost": {"tokens": -1}, "keys": {"a": 1}})
    assert sorted(found) == ["/cost/tokens", "/delay", "/keys/a", "/type", "/x"]


def test_an_unknown_member_is_escaped_in_its_pointer() -> None:
    assert pointers({"type": "t", "a/b~c": 1}) == ["/a~1b~0c"]


@pytest.mark.parametrize(
    ("given_priority", "number"), [("high", 1), ("normal", 5), ("low", 8), (0, 0), (9, 9), (None, 5)]
)
def test_priorities(given_priority: Any, number: int) -> None:
    assert read_job({"type": "t", "priority": given_priority}).priority == number


def test_a_whole_job() -> None:
    spec = read_job(
        {
            "type": "t", "queue": "q", "priority": "high", "payload": {"a": 1}, "project": "p", "user": "u",
            "run_at": "2030-01-01T02:00:00+02:00", "cost": {"tokens": 2**53 - 1, "requests": 0}, "max_attempts": 3,
            "timeout": 0.5, "batch": {"id": "b"}, "callback_url": "https://x.example/", "keys": {"chat": "-1"},
            "delivery": "at_most_once", "after": ["x", "y", "x"], "unique_for": 60, "unique_key": "k",
            "idempotency_key": "i",
        }
    )  # fmt: skip
    assert spec.run_at == datetime(2030, 1, 1, tzinfo=UTC)
    assert spec.cost == {"tokens": 2**53 - 1, "requests": 0}
    assert (spec.batch, spec.after, spec.unique_for, spec.unique_key) == ("b", ("x", "y"), 60.0, "k")
    assert (spec.delivery, spec.timeout, spec.max_attempts, spec.idempotency_key) == ("at_most_once", 0.5, 3, "i")


def test_a_bare_number_costs_requests() -> None:
    assert read_job({"type": "t", "cost": 5}).cost == {"requests": 5}


def test_null_means_not_given() -> None:
    names = [
        "queue",
        "project",
        "user",
        "run_at",
        "delay",
        "cost",
        "max_attempts",
        "timeout",
        "batch",
        "callback_url",
        "keys",
        "after",
        "unique_for",
    ]
    assert read_job({"type": "t", **dict.fromkeys(names)}) == read_job({"type": "t"}) or (
        # Only the digest differs: it is of the body as it was sent.
        {**_fields(read_job({"type": "t", **dict.fromkeys(names)})), "digest": ""}
        == {**_fields(read_job({"type": "t"})), "digest": ""}
    )


def _fields(spec: Any) -> dict[str, Any]:
    return {name: getattr(spec, name) for name in spec.__slots__}


def test_the_digest_is_of_the_body_without_its_key() -> None:
    one = read_job({"type": "t", "payload": {"a": 1, "b": [1, 2]}, "idempotency_key": "x"})
    same = read_job({"payload": {"b": [1, 2], "a": 1}, "type": "t"})
    other = read_job({"type": "t", "payload": {"a": 1, "b": [2, 1]}})
    assert one.digest == same.digest != other.digest


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(
    [
        "type",
        "queue",
        "priority",
        "payload",
        "project",
        "user",
        "run_at",
        "delay",
        "cost",
        "max_attempts",
        "timeout",
        "batch",
        "callback_url",
        "keys",
        "delivery",
        "after",
        "unique_for",
        "unique_key",
        "idempotency_key",
        "other",
    ]
)


@given(JSON | st.dictionaries(NAMES, JSON, max_size=6))
def test_no_input_raises_anything_but_invalid_job(data: Any) -> None:
    try:
        read_job(data)
    except InvalidJob as error:
        assert error.errors


@given(JSON, JSON)
def test_equal_digests_mean_equal_values(one: Any, other: Any) -> None:
    if fingerprint(one) == fingerprint(other):
        assert repr(one) == repr(other) or one == other
