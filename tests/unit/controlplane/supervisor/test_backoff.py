"""Waits between the starts of a child that keeps dying."""

from controlplane.supervisor.backoff import Backoff


def test_waits_double_up_to_the_longest() -> None:
    backoff = Backoff()
    waits = [backoff.died(1.0) for _ in range(9)]
    assert waits[:4] == [0.1, 0.2, 0.4, 0.8] and waits[-2:] == [10.0, 10.0]


def test_there_is_no_last_start() -> None:
    backoff = Backoff()
    assert {backoff.died(0.0) for _ in range(10_000)} <= {0.1 * 2**number for number in range(7)} | {10.0}


def test_a_minute_of_life_resets_the_wait() -> None:
    backoff = Backoff()
    for _ in range(5):
        backoff.died(1.0)
    assert backoff.died(60.0) == 0.1
    backoff.died(1.0)
    backoff.lives(59.9)
    assert backoff.deaths == 2
    backoff.lives(60.0)
    assert backoff.deaths == 0
