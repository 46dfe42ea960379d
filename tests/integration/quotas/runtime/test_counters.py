"""Counts of all processes, buffered in each and added up in Redis."""

from __future__ import annotations

import os

import pytest

from quotas.runtime.connection import limiter
from quotas.runtime.counters import BufferedCounter


@pytest.fixture
def counter() -> BufferedCounter:
    return BufferedCounter("test", most=3)


def test_fields_beyond_the_most_are_counted_together(counter: BufferedCounter) -> None:
    counter.add(("p", "", str(n)) for n in range(5))
    counter.add([("p", "", "1")])
    counter.flush()
    assert counter.drain() == {("p", "", "0"): 1, ("p", "", "1"): 2, ("p", "", "2"): 1, ("p", "", ""): 2}
    assert counter.drain() == {}


def test_counts_that_are_read_stay_and_may_have_fractions() -> None:
    counter = BufferedCounter("test-kept", life=None)
    for _ in range(2):
        counter.add([("seconds", "sum")], 0.25)
        counter.add([("total",)])
        counter.flush()
    for _ in range(2):
        assert counter.read() == {("seconds", "sum"): 0.5, ("total",): 2.0}
    transport = limiter().limiter.transport
    assert transport.command("TTL", counter._key) == -1
    transport.command("DEL", counter._key)


def test_counts_that_nobody_drains_end(counter: BufferedCounter) -> None:
    counter.add([("a",)])
    counter.flush()
    assert 0 < limiter().limiter.transport.command("TTL", counter._key) <= 3600
    counter.drain()


def test_a_forked_process_does_not_flush_its_parents_counts(counter: BufferedCounter) -> None:
    counter.add([("a",)], 5)
    child = os.fork()
    if child == 0:
        os._exit(1 if counter._sums else 0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    counter.flush()
    assert counter.drain() == {("a",): 5}
