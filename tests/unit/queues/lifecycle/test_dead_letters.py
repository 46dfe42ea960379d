"""Fingerprints group what failed alike; severities say who must act."""

from __future__ import annotations

import pytest

from queues.lifecycle.dead_letters import fingerprint_of
from quotas.engine.categories import Category

ALIKE = [
    ("KeyError: 4711", "KeyError: 42"),
    ("<Thing object at 0x7f00aa> failed", "<Thing object at 0xdeadbeef> failed"),
    ("job 01k4zv7m3c8f2d9e6a5b1c0d7e of 3", "job 01k4zv7m3c8f2d9e6a5b1c0d7e of 17"),
    ("no row 123e4567-e89b-12d3-a456-426614174000", "no row 00000000-0000-4000-8000-000000000000"),
    ("HTTP 500: line 7", "HTTP 500: line 8"),
]


@pytest.mark.parametrize(("one", "other"), ALIKE)
def test_numbers_ids_and_addresses_do_not_separate_groups(one: str, other: str) -> None:
    assert fingerprint_of("t", "code", one) == fingerprint_of("t", "code", other)


def test_type_category_and_words_do() -> None:
    base = ("t", "code", "KeyError: name")
    others = [("u", "code", "KeyError: name"), ("t", "server", "KeyError: name"), ("t", "code", "ValueError: name")]
    found = {fingerprint_of(*base), *(fingerprint_of(*other) for other in others)}
    assert len(found) == 4


def test_a_fingerprint_of_anything_is_sixteen_hex_digits() -> None:
    for text in ("", "\x00", "\ud800 half", "ü" * 5000):
        assert len(fingerprint_of("t", "code", text)) == 16


@pytest.mark.parametrize(
    ("category", "severity"),
    [
        ("auth", "critical"), ("poison", "critical"), ("code", "critical"), ("rate_limited", "info"),
        ("server", "warning"), ("network", "warning"), ("timeout", "warning"), ("validation", "warning"),
    ],
)  # fmt: skip
def test_severity_says_who_must_act(category: str, severity: str) -> None:
    assert Category.of(category).severity == severity
