"""Ids of leases and reservations: no two alike, in no two processes."""

from __future__ import annotations

import os
import re
import threading

from quotas.engine import ids
from quotas.engine.ids import random_id


def test_ids_are_plain_and_all_different() -> None:
    found = [random_id() for _ in range(10_000)]
    assert len(set(found)) == len(found)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{20}", one) for one in found)


def test_a_forked_child_repeats_no_id_of_its_parent() -> None:
    random_id()
    assert ids._ready, "ids are made in advance: a child that kept them would use its parent's"
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.write(writer, " ".join(random_id() for _ in range(ids.AT_ONCE)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    with os.fdopen(reader) as given:
        os.close(writer)
        theirs = set(given.read().split())
    assert len(theirs) == ids.AT_ONCE
    assert theirs.isdisjoint(random_id() for _ in range(3 * ids.AT_ONCE))


def test_threads_share_none() -> None:
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.extend([random_id() for _ in range(2_000)])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == len(found) == 16_000
