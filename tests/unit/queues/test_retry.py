"""When a failed job is tried again: strategies, caps, jitter, hints, exceptions by category."""

from __future__ import annotations

import random

import pytest

from queues.config import RetrySpec
from queues.retry import LEAST_RETRY, LEAST_WAIT, limited_delay, next_delay
from quotas.engine.categories import Category


def middle(low: float, high: float) -> float:
    return (low + high) / 2


def policy(strategy: str, **fields: object) -> RetrySpec:
    return RetrySpec(**({"strategy": strategy, "initial": 2.0, "max": 60.0, "jitter": 0.1} | fields))  # type: ignore[arg-type]


def delays(spec: RetrySpec, category: str = "server", count: int = 8) -> list[float | None]:
    return [next_delay(spec, category, n, max_attempts=99, uniform=middle) for n in range(1, count + 1)]


def test_exponential_doubles_from_initial_up_to_max() -> None:
    assert delays(policy("exponential")) == [2, 4, 8, 16, 32, 60, 60, 60]


def test_linear_grows_by_initial_up_to_max() -> None:
    assert delays(policy("linear", max=7.0)) == [2, 4, 6, 7, 7, 7, 7, 7]


def test_fixed_stays() -> None:
    assert delays(policy("fixed"), "network", 4) == [2, 2, 2, 2]
    assert delays(policy("fixed", max=1.5), "network", 2) == [1.5, 1.5]


def test_exponential_of_very_many_failures_is_a_number() -> None:
    assert next_delay(policy("exponential"), "server", 100_000, max_attempts=10**6, uniform=middle) == 60.0


@pytest.mark.parametrize("jitter", [0.0, 0.1, 0.5, 1.0])
def test_jitter_is_its_fraction_both_ways(jitter: float) -> None:
    draw = random.Random(5).uniform
    found = [
        next_delay(policy("fixed", initial=10.0, jitter=jitter), "server", 1, max_attempts=9, uniform=draw)
        for _ in range(2000)
    ]
    assert min(found) >= 10 * (1 - jitter) - 1e-9
    assert max(found) <= 10 * (1 + jitter) + 1e-9
    if jitter:
        assert min(found) < 10 * (1 - jitter * 0.9)
        assert max(found) > 10 * (1 + jitter * 0.9)


def test_given_up_after_max_attempts() -> None:
    spec = policy("fixed")
    assert next_delay(spec, "server", 2, max_attempts=3) is not None
    assert next_delay(spec, "server", 3, max_attempts=3) is None
    assert next_delay(spec, "server", 1, max_attempts=1) is None
    assert next_delay(spec, "server", 3, max_attempts=3, hint=1.0) is None, "a hint gives no further attempt"


@pytest.mark.parametrize("hint", [0.2, 30.0, 4000.0])
def test_a_hint_is_never_shortened_and_lengthened_by_a_tenth_at_most(hint: float) -> None:
    draw = random.Random(1).uniform
    found = [
        next_delay(policy("exponential", jitter=0.5), "server", 1, max_attempts=5, hint=hint, uniform=draw)
        for _ in range(500)
    ]
    assert all(value is not None and hint <= value <= hint * 1.1 for value in found)
    assert len(set(found)) > 100, "those who wait don't come all at once"


@pytest.mark.parametrize("category", [category for category in Category if category.is_permanent])
def test_smart_gives_up_what_no_repetition_heals(category: Category) -> None:
    assert next_delay(policy("smart"), category, 1, max_attempts=5) is None
    assert next_delay(policy("smart"), category, 1, max_attempts=5, hint=1.0) is None


@pytest.mark.parametrize("category", [category for category in Category if category.backoff])
def test_smart_goes_by_the_category_and_not_by_the_policys_own_figures(category: Category) -> None:
    assert category.backoff is not None
    initial, longest = category.backoff
    found = delays(policy("smart", initial=7.0, max=9.0), category, 20)
    assert found[0] == initial
    assert found[-1] == longest


def test_smart_uses_the_policys_own_figures_for_a_category_that_it_does_not_know() -> None:
    assert delays(policy("smart"), "unknown", 3) == [2, 4, 8]


def test_never_by_category() -> None:
    spec = policy("fixed", by_category={"auth": "never"})
    assert next_delay(spec, "auth", 1, max_attempts=5) is None
    assert next_delay(spec, "server", 1, max_attempts=5) is not None


def test_a_category_may_have_its_own_figures_and_strategy() -> None:
    spec = policy("fixed", by_category={"server": {"initial": 0.5, "max": 1.5, "strategy": "exponential"}})
    assert delays(spec, "server", 4) == [0.5, 1.0, 1.5, 1.5]
    assert delays(spec, "network", 2) == [2, 2]


def test_an_exception_lets_smart_retry_what_it_would_give_up() -> None:
    spec = policy("smart", by_category={"code": {"initial": 3.0}})
    assert delays(spec, "code", 2) == [3.0, 6.0]


@pytest.mark.parametrize("hint", [0.0, 0.001, 0.2, 0.99])
def test_a_limit_is_never_met_again_at_once(hint: float) -> None:
    """What is not counted has no other bound."""
    draw = random.Random(3).uniform
    spec = policy("exponential", jitter=1.0, initial=0.0, by_category={"rate_limited": {"initial": 0.0}})
    for given in (hint, None):
        found = [limited_delay(spec, "rate_limited", n, hint=given, uniform=draw) for n in range(1, 100)]
        assert min(found) >= LEAST_WAIT


@pytest.mark.parametrize("hint", [0.0, 0.001])
def test_a_hint_that_says_now_means_soon(hint: float) -> None:
    assert next_delay(policy("exponential", jitter=0.0), "server", 1, max_attempts=5, hint=hint) == LEAST_WAIT


@pytest.mark.parametrize("strategy", ["exponential", "linear", "fixed"])
def test_a_policy_without_a_wait_has_a_least_one(strategy: str) -> None:
    spec = policy(strategy, initial=0.0, max=0.0, jitter=1.0)
    assert next_delay(spec, "server", 1, max_attempts=5) == LEAST_RETRY
