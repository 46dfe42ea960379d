"""Simulated counters against the engine's own arithmetic: the same costs pass at the same times."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from queues.simulation.counters import NOTHING, Use, counter_of, spread
from quotas.engine.limits.capacity import capacity_of
from quotas.engine.limits.reference import ReferenceLimiter
from quotas.engine.types import Limit
from tests.unit.queues.simulation.scenes import NOW, limit

LIMITS = [
    limit("token_bucket", 7, 10.0),
    limit("token_bucket", 5, 1.0, burst=20),
    limit("fixed_window", 9, 60.0),
    limit("sliding_window", 9, 60.0),
    limit("calendar", 9, 0.0, period="day", timezone="America/New_York"),
    limit("calendar", 9, 0.0, period="month"),
]


def engine_starts(one: Limit, costs: list[int]) -> list[float]:
    """When each cost passes by the engine, one after the other."""
    now = int(NOW * 1e6)
    limiter = ReferenceLimiter(clock=lambda: now)
    starts = []
    for cost in costs:
        while not (decision := limiter.check([replace(one, cost=cost)])):
            assert decision.retry_after is not None
            now += max(round(decision.retry_after * 1e6), 1)
        starts.append(now / 1e6 - NOW)
    return starts


def simulated_starts(one: Limit, costs: list[int]) -> list[float]:
    now, capacity = NOW, float(capacity_of(one.algorithm, one.limit, one.burst) or 0)
    counter = counter_of(one, NOTHING, now)
    starts = []
    for cost in costs:
        now += counter.wait(now, cost, capacity)
        assert counter.wait(now, cost, capacity) < 1e-6
        assert counter.charge(now, cost, capacity) == 0.0
        starts.append(now - NOW)
    return starts


@pytest.mark.parametrize("one", LIMITS, ids=lambda one: f"{one.algorithm}-{one.limit}{one.period}")
@pytest.mark.parametrize("seed", range(5))
def test_the_same_costs_pass_at_the_same_times(one: Limit, seed: int) -> None:
    chance = random.Random(seed)
    costs = [chance.randint(1, 5) for _ in range(60)]
    assert simulated_starts(one, costs) == pytest.approx(engine_starts(one, costs), abs=0.001)


def test_the_windows_that_are_weighed_admit_as_much_in_the_long_run() -> None:
    one = limit("sliding_window_counter", 30, 60.0)
    costs = [1] * 600
    assert simulated_starts(one, costs)[-1] == pytest.approx(engine_starts(one, costs)[-1], rel=0.1)


@pytest.mark.parametrize("one", LIMITS, ids=lambda one: f"{one.algorithm}-{one.limit}{one.period}")
def test_many_units_in_one_charge_pass_as_long_as_one_by_one(one: Limit) -> None:
    capacity = float(capacity_of(one.algorithm, one.limit, one.burst) or 0)
    counter = counter_of(one, NOTHING, NOW)
    last = simulated_starts(one, [1] * 100)[-1]
    assert counter.charge(NOW, 100, capacity) == pytest.approx(last, rel=0.02)
    assert counter.free(NOW, capacity) <= 0, "nothing is left before that"


def test_what_is_used_comes_back_when_it_was_read_to() -> None:
    use = spread([(NOW + 30.0, 4.0), (NOW + 10.0, 1.0), (NOW + 50.0, 9.0)])
    assert use == Use(((NOW + 10.0, 1.0), (NOW + 30.0, 3.0), (NOW + 50.0, 5.0)))
    counter = counter_of(limit("sliding_window", 10, 60.0), use, NOW)
    assert [counter.wait(NOW, cost, 10.0) for cost in (1, 2, 3, 5, 6, 10)] == [0.0, 10.0, 30.0, 30.0, 50.0, 50.0]


def test_slots_are_freed_by_ends_and_those_of_other_calls_by_time() -> None:
    counter = counter_of(limit("concurrency", 3), Use(((NOW + 20.0, 1.0),)), NOW, in_flight=2)
    assert counter.by_ends
    assert counter.wait(NOW, 1, 3.0) == 20.0
    counter.release(1)
    assert counter.wait(NOW, 1, 3.0) == 0.0
