"""What the dispatcher's bell makes of rings."""

from __future__ import annotations

import json

import pytest

from queues import connection
from queues.dispatcher import wakeups


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"not JSON",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"{}",
        b'{"groups": 7, "again": false, "unblock": false}',
        b'{"groups": [[1]], "again": false, "unblock": false}',
        b'{"groups": [["x", 1, 1, ""]], "again": false, "unblock": false}',
    ],
)
def test_a_ring_that_can_not_be_read_looks_at_everything_and_hides_no_other(raw: bytes) -> None:
    client = connection.client()
    client.delete(connection.key("bell"))
    good = json.dumps({"groups": [[1, 5, 2, "p"]], "again": False, "unblock": False})
    client.rpush(connection.key("bell"), raw, good)
    rings = wakeups.listen(1.0)
    assert rings.unblock
    assert rings.grew == {(1, 5, 2, "p")}


def test_another_type_of_value_at_the_bell_is_waited_for() -> None:
    client = connection.client()
    client.delete(connection.key("bell"))
    client.set(connection.key("bell"), "not a list")
    assert not wakeups.listen(0.05).any
    client.delete(connection.key("bell"))
