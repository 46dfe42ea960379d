"""One shape for mistakes in inputs, whichever code finds them."""

from __future__ import annotations

import pytest

from queues.errors import FieldError as FieldErrorOfJobs
from quotas.rest.fingerprints import fingerprint
from quotas.rest.pointers import FieldError, escape, pointer
from quotas.rest.problems import InvalidRequest, document


@pytest.mark.parametrize(
    ("where", "shown"),
    [
        ("", {"pointer": "#"}),
        ("/cost/tokens", {"pointer": "#/cost/tokens"}),
        ("#/cost/tokens", {"pointer": "#/cost/tokens"}),
        ("?limit", {"pointer": "?limit", "parameter": "limit"}),
        ("Idempotency-Key", {"pointer": "Idempotency-Key"}),
    ],
)
def test_a_mistake_names_its_place(where: str, shown: dict[str, str]) -> None:
    error = InvalidRequest.at(where, "is wrong")
    assert error.document()["errors"] == [{**shown, "detail": "is wrong"}]
    assert error.detail == f"{shown['pointer']}: is wrong"


def test_several_mistakes_are_all_listed_and_counted() -> None:
    found = [FieldErrorOfJobs("/a", "one"), FieldError("/b", "two")]
    error = InvalidRequest.of(found)
    assert error.detail == "#/a: one (and 1 more)"
    assert [item["pointer"] for item in document("x", "X", 400, "", found)["errors"]] == ["#/a", "#/b"]


def test_names_are_escaped_and_cut() -> None:
    assert pointer("a/b", "c~d", 3) == "#/a~1b/c~0d/3"
    assert escape("\ud800x") == "?x"
    assert len(escape("x" * 100)) == 65


def test_a_fingerprint_depends_on_the_meaning_alone() -> None:
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": [1, 2], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": "1"})
    assert fingerprint({"a": "\ud800"}) != fingerprint({"a": "\udc00"})
