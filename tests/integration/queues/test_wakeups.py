"""Wake-ups of the dispatcher: unreadable ones, and a key with another type of value."""

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
def test_an_unreadable_wakeup_unblocks_all_groups_and_hides_no_other(raw: bytes) -> None:
    client = connection.client()
    client.delete(connection.key(wakeups.KEY))
    good = json.dumps({"groups": [[1, 5, 2, "p"]], "requeued": False, "unblock": False})
    client.rpush(connection.key(wakeups.KEY), raw, good)
    woken = wakeups.wait(1.0)
    assert woken.unblock
    assert woken.appended == {(1, 5, 2, "p")}


def test_another_type_of_value_under_the_key_only_delays() -> None:
    client = connection.client()
    client.delete(connection.key(wakeups.KEY))
    client.set(connection.key(wakeups.KEY), "not a list")
    assert not wakeups.wait(0.05).any
    client.delete(connection.key(wakeups.KEY))
