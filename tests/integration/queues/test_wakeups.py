"""What the dispatcher's bell makes of woken."""

from __future__ import annotations

import json

import pytest

from queues import connection, wakeups


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"not JSON",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"{}",
        b'{"groups": 7, "requeued": false, "unblock": false}',
        b'{"groups": [[1]], "requeued": false, "unblock": false}',
        b'{"groups": [["x", 1, 1, ""]], "requeued": false, "unblock": false}',
    ],
)
def test_a_ring_that_can_not_be_read_looks_at_everything_and_hides_no_other(raw: bytes) -> None:
    client = connection.client()
    client.delete(connection.key(wakeups.KEY))
    good = json.dumps({"groups": [[1, 5, 2, "p"]], "requeued": False, "unblock": False})
    client.rpush(connection.key(wakeups.KEY), raw, good)
    woken = wakeups.wait(1.0)
    assert woken.unblock
    assert woken.appended == {(1, 5, 2, "p")}


def test_another_type_of_value_at_the_bell_is_waited_for() -> None:
    client = connection.client()
    client.delete(connection.key(wakeups.KEY))
    client.set(connection.key(wakeups.KEY), "not a list")
    assert not wakeups.wait(0.05).any
    client.delete(connection.key(wakeups.KEY))
