"""How many jobs may wait on the belt, by how fast the workers end jobs."""

from __future__ import annotations

import pytest

from queues.dispatcher.capacity import MOST_PREFETCH, PREFETCH_TIME, Pace

SLOTS = {"io": 100, "cpu": 2}


def after(per_cycle: int, seconds: float, cycles: int = 100, pace: Pace | None = None) -> Pace:
    """The pace after cycles of so many seconds, between each two of which so many jobs of the lane io ended."""
    pace = pace or Pace()
    moment = 1000.0
    pace.end_cycle({"io": 200, "cpu": 2}, moment)
    for _ in range(cycles):
        moment += seconds
        pace.begin_cycle({"io": 200 - per_cycle, "cpu": 2}, moment)
        pace.end_cycle({"io": 200, "cpu": 2}, moment)
    return pace


def test_nothing_waits_before_a_job_has_ended_since_it_may_take_hours() -> None:
    assert Pace().prefetch(SLOTS) == {"io": 0, "cpu": 0}


def test_quick_jobs_wait_for_a_tenth_of_a_second_at_most() -> None:
    pace = after(per_cycle=80, seconds=0.04)
    assert pace.per_second["io"] == pytest.approx(2000, rel=0.01)
    assert pace.prefetch(SLOTS) == {"io": pytest.approx(2000 * PREFETCH_TIME, rel=0.01), "cpu": 0}


def test_no_more_wait_than_a_few_per_slot() -> None:
    assert after(per_cycle=190, seconds=0.01).prefetch(SLOTS)["io"] == MOST_PREFETCH * 100


@pytest.mark.parametrize(("job_seconds", "waiting"), [(0.5, 100), (1.0, 100), (5.0, 20), (60.0, 2), (3600.0, 0)])
def test_as_many_jobs_wait_as_end_within_a_second(job_seconds: float, waiting: int) -> None:
    """A more urgent job waits for those on the belt."""
    evenly = after(per_cycle=1, seconds=job_seconds / 100, cycles=max(300, int(4000 / job_seconds)))
    assert evenly.prefetch(SLOTS)["io"] == pytest.approx(waiting, abs=3)


def test_jobs_of_a_second_that_all_end_together_find_the_next_ones_on_the_belt() -> None:
    pace = Pace()
    moment = 1000.0
    for _ in range(30):
        for second, left in ((0.0, 0), (0.3, 100), (0.3, 100), (0.4, 100)):
            moment += second
            pace.begin_cycle({"io": left}, moment)
            pace.end_cycle({"io": 100}, moment)
    assert pace.prefetch({"io": 100})["io"] >= 80


def test_slow_jobs_that_end_together_do_not_count_as_quick_ones() -> None:
    pace = after(per_cycle=100, seconds=20.0, cycles=1)
    assert pace.prefetch(SLOTS)["io"] == 5
    burst = after(per_cycle=100, seconds=0.01, cycles=1, pace=pace)  # all of them between two cycles
    assert burst.prefetch(SLOTS)["io"] < 0.5 * SLOTS["io"]


def test_the_pace_is_forgotten_when_jobs_become_slow() -> None:
    pace = after(per_cycle=80, seconds=0.04)
    assert after(per_cycle=0, seconds=0.5, cycles=2, pace=pace).prefetch(SLOTS)["io"] == SLOTS["io"]
    assert after(per_cycle=0, seconds=0.5, cycles=200, pace=pace).prefetch(SLOTS)["io"] == 0
