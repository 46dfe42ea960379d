"""What the fields of a request mean, and which of them are passed on."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.gateway import fields
from quotas.rest.problems import ProblemError


def test_wishes_are_read() -> None:
    wishes = fields.wishes_of(
        {
            b"sluice-keys": b"chat=-100123, model=x",
            b"sluice-cost": b"requests=2,tokens=900",
            b"sluice-priority": b"low",
            b"prefer": b"respond-async, wait=900",
        }
    )
    assert wishes.keys == {"chat": "-100123", "model": "x"} and wishes.cost == {"requests": 2, "tokens": 900}
    assert wishes.priority == 8 and wishes.wait == fields.MAX_WAIT and wishes.preferred == "wait=300"
    assert wishes.may_defer


def test_preferences_of_several_lines_are_one_list() -> None:
    found = fields.single([(b"prefer", b"wait=3"), (b"prefer", b"respond-async, wait=9")])
    wishes = fields.wishes_of(found)
    assert wishes.wait == 3 and wishes.may_defer


def test_header_fields_have_a_size(settings: Any) -> None:
    settings.GATEWAY_MAX_HEADERS = 2000
    fields.single([(b"x-a", b"x" * 1000)])
    with pytest.raises(ProblemError) as refused:
        fields.single([(b"x-a", b"x" * 1000), (b"x-b", b"x" * 1000)])
    assert refused.value.status == 431


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"sluice-unknown", b"1"), (b"sluice-cost", b"tokens=-1"), (b"sluice-cost", b"tokens=1.5"),
        (b"sluice-cost", b"tokens=9007199254740992"), (b"sluice-keys", b"chat"), (b"sluice-keys", b"a=1,a=2"),
        (b"sluice-priority", b"11"), (b"sluice-user", b"\xff"), (b"sluice-user", b"x" * 1025),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused(name: bytes, value: bytes) -> None:
    with pytest.raises(ProblemError):
        fields.wishes_of({name: value})


@pytest.mark.parametrize(
    "name", [b"host", b"authorization", b"x-api-key", b"content-length", b"sluice-user", b"idempotency-key"]
)
def test_a_field_that_decides_is_there_once(name: bytes) -> None:
    with pytest.raises(ProblemError):
        fields.single([(name, b"1"), (name, b"2")])


def test_two_keys_that_differ_are_none() -> None:
    assert fields.token_of({b"authorization": b"Bearer sl_a_b", b"x-api-key": b"sl_a_b"}) == "sl_a_b"
    assert fields.token_of({b"authorization": b"Bearer sl_a_b", b"x-api-key": b"sl_c_d"}) == ""
    assert fields.token_of({b"authorization": b"Bearer other", b"x-api-key": b"sl_c_d"}) == "sl_c_d"
