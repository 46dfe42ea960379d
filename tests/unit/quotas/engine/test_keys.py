"""Keys: subjects never share one unless they are equal, and nothing that a user says is in a key."""

from __future__ import annotations

import unicodedata

import pytest

from quotas.engine.keys import Keys, parse_member, plain, subject
from quotas.engine.types import Limit

ODD = [
    "",
    "a",
    "a:b",
    "a\0b",
    "{x}",
    "line\nbreak",
    "*",
    "1:a",
    "x" * 10240,
    "x" * 10241,
    unicodedata.normalize("NFC", "é"),
    unicodedata.normalize("NFD", "é"),
    "\ud800",
]


def one(subject: str, partition: str = "", **fields: object) -> Limit:
    return Limit("p", "p", "user", subject, "fixed_window", 1, partition=partition, **fields)  # type: ignore[arg-type]


def test_odd_subjects_have_keys_of_their_own_and_equal_ones_share() -> None:
    keys = Keys()
    pairs = [(partition, subject) for partition in ODD for subject in ODD]
    made = {keys.counter(one(subject, partition)) for partition, subject in pairs}
    assert len(made) == len(pairs)
    assert made == {keys.counter(one("".join(subject), partition)) for partition, subject in pairs}
    assert all(len(key) < 100 and key.count(b"{") == 1 and b"\n" not in key for key in made)


def test_generation_unit_and_algorithm_are_part_of_the_counter() -> None:
    keys = Keys()
    others = [one("u"), one("u", generation=1), one("u", unit="tokens")]
    assert len({keys.counter(other) for other in others}) == 3
    assert len({keys.index(other) for other in others}) == 3


def test_odd_identifiers_are_hashed_and_no_plain_one_looks_like_a_hash() -> None:
    assert plain("user-hourly") == "user-hourly"
    assert plain("a:b").startswith("~") and ":" not in plain("a:b")
    assert plain(plain("a:b")) != plain("a:b")


@pytest.mark.parametrize("partition", ["", "acme", "9:x"])
@pytest.mark.parametrize("name", ["u", "ü" * 300, "1:2"])
def test_an_index_member_says_whom_it_stands_for(partition: str, name: str) -> None:
    hashed, shown_partition, shown = parse_member(subject(partition, name)[1])
    assert shown_partition == partition and shown == name[:256]
    assert Keys().counter_of(one("other"), hashed) == Keys().counter(one(name, partition))


def test_a_prefix_can_not_break_the_hash_tag() -> None:
    with pytest.raises(ValueError, match="prefix"):
        Keys("a}b")
