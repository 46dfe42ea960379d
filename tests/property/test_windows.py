"""No true window is ever over its limit, wherever it starts and however requests arrive."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from quotas.engine.limits.codec import capacity
from quotas.engine.limits.periods import boundaries
from quotas.engine.limits.reference import ReferenceLimiter
from quotas.engine.types import Limit
from tests.property.arrivals import MICRO, Clock, costs, gaps, limits


def admitted(data: st.DataObject, limit: Limit, steps_back: bool = False) -> list[tuple[int, int, int]]:
    """(true time, time on the clock, cost) of what was admitted in some adversarial run."""
    clock = Clock()
    true = clock.now
    limiter = ReferenceLimiter(clock=clock)
    passed = []
    for _ in range(data.draw(st.integers(1, 40))):
        gap = data.draw(gaps(limit.window))
        clock.now += gap
        true += gap
        if steps_back and data.draw(st.booleans()):
            clock.now -= data.draw(st.integers(0, 5 * MICRO))
        for _ in range(data.draw(st.integers(1, 4))):
            one = replace(limit, cost=data.draw(costs(limit)), mode="enforce")
            decision = limiter.check([one])
            if decision:
                passed.append((true, clock.now, one.cost))
    return passed


def busiest(passed: list[tuple[int, int, int]], window: int) -> int:
    """The most units in any half-open interval of that length: the worst ones begin with an arrival."""
    return max((sum(c for t, _, c in passed if s <= t < s + window) for s, _, _ in passed), default=0)


@settings(deadline=None, max_examples=60)
@given(st.data(), limits(algorithms=("sliding_window",), small=True), st.booleans())
def test_sliding_window_never_exceeds_in_any_true_window(data: st.DataObject, limit: Limit, back: bool) -> None:
    passed = admitted(data, limit, steps_back=back)
    assert busiest(passed, round(limit.window * MICRO)) <= (limit.limit or 0)


@settings(deadline=None, max_examples=50)
@given(st.data(), limits(algorithms=("sliding_window_counter",), small=True))
def test_sliding_window_counter_stays_below_twice_its_limit(data: st.DataObject, limit: Limit) -> None:
    passed = admitted(data, limit)
    assert busiest(passed, round(limit.window * MICRO)) <= 2 * (limit.limit or 0)


@settings(deadline=None, max_examples=60)
@given(st.data(), limits(algorithms=("token_bucket",), small=True), st.booleans())
def test_token_bucket_never_exceeds_burst_and_rate(data: st.DataObject, limit: Limit, back: bool) -> None:
    passed = admitted(data, limit, steps_back=back)
    window = round(limit.window * MICRO)
    top, rate = capacity(limit) or 0, limit.limit or 0
    for i, (start, _, _) in enumerate(passed):
        total = 0
        for moment, _, cost in passed[i:]:
            total += cost
            assert (total - top) * window <= (moment - start) * rate


@settings(deadline=None, max_examples=50)
@given(st.data(), limits(algorithms=("fixed_window", "calendar"), small=True))
def test_periods_never_exceed(data: st.DataObject, limit: Limit) -> None:
    if limit.algorithm == "calendar":
        limit = replace(limit, window=86400.0)
    totals: dict[int, int] = {}
    for _, moment, cost in admitted(data, limit):
        if limit.algorithm == "calendar":
            start = boundaries(limit.period, limit.timezone, moment)[1]
        else:
            start = moment - moment % round(limit.window * MICRO)
        totals[start] = totals.get(start, 0) + cost
    assert all(total <= (limit.limit or 0) for total in totals.values())


@settings(deadline=None, max_examples=50)
@given(st.data(), limits(algorithms=("concurrency",), small=True), st.booleans())
def test_concurrency_never_exceeds(data: st.DataObject, limit: Limit, back: bool) -> None:
    passed = admitted(data, limit, steps_back=back)
    assert busiest(passed, round(limit.lease_ttl * MICRO)) <= (limit.limit or 0)
