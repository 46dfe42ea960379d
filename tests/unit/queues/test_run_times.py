"""How long jobs run, by what has ended: nothing known, few of a type, jobs that run longer than all before."""

from __future__ import annotations

import pytest

from queues.selectors.run_times import ASSUMED, LEAST, RunTimes

TEN = [float(number) for number in range(1, 11)]


def times(**by_type: list[float]) -> RunTimes:
    """Of queue 1."""
    found = {(1, name): sorted(each) for name, each in by_type.items()}
    return RunTimes(found, {1: sorted(second for each in by_type.values() for second in each)})


def test_the_mean_is_expected_and_quantiles_are_the_bounds() -> None:
    found = times(a=TEN).of(1, "a", 60.0)
    assert (found.expected, found.fast, found.slow, found.known) == (5.5, 2.0, 10.0, True)


def test_equal_runs_have_no_spread() -> None:
    found = times(a=[0.0] * 10).of(1, "a", 60.0)
    assert (found.expected, found.fast, found.slow) == (0.0, 0.0, 0.0)


def test_the_mean_is_within_the_bounds_where_single_runs_are_very_long() -> None:
    found = times(a=[1.0] * 99 + [10_000.0]).of(1, "a", 60.0)
    assert found.fast <= found.expected <= found.slow


def test_few_runs_of_a_type_count_with_those_of_others() -> None:
    few = times(a=[100.0] * (LEAST - 1), b=[1.0] * 20)
    assert few.of(1, "a", 600.0).expected == 100.0, "those of its own type elsewhere, as far as there are any"
    assert few.of(1, "c", 600.0).expected < 20.0, "else all of the queue"


def test_nothing_known_is_said() -> None:
    found = RunTimes().of(1, "a", 60.0)
    assert (found.expected, found.fast, found.slow, found.known) == (ASSUMED, 0.0, 60.0, False)
    assert RunTimes().of(1, "a", 0.5).expected == 0.5, "no run is longer than its time-out"


@pytest.mark.parametrize("elapsed", [0.0, 3.0, 9.5, 10.0, 50.0, 100.0])
def test_what_is_left_of_a_run_is_never_negative(elapsed: float) -> None:
    found = times(a=TEN).left(1, "a", 60.0, elapsed)
    assert 0.0 <= found.fast <= found.expected <= found.slow


def test_what_is_left_is_by_those_that_ran_longer() -> None:
    assert times(a=TEN).left(1, "a", 60.0, 8.0).expected == 1.5
    assert not times(a=TEN).left(1, "a", 60.0, 20.0).known
