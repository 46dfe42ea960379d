"""Which account is picked, and that no account is favoured by others' absence."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from quotas.engine.learned import LearnedQuota
from quotas.engine.types import AccountSpec, CallOutcome
from tests.integration.quotas.engine.accounts.conftest import SERVER, bucket, pool


def shares(engine, spec, calls, **fields):
    return Counter(engine.call(spec, **fields)[0] for _ in range(calls))


def spread(counts):
    return max(counts.values()) - min(counts.values())


def test_round_robin_is_even(engine):
    assert shares(engine, pool(3), 30) == {"a1": 10, "a2": 10, "a3": 10}


@pytest.mark.parametrize("limited", [{"a1"}, {"a2"}, {"a1", "a3"}])
def test_round_robin_stays_even_under_skips(engine, clock, limited):
    spec = pool(3)
    shares(engine, spec, 6)
    for account in limited:
        engine.accounts.trip(account, 1000)
    counts = shares(engine, spec, 40)
    assert set(counts) == {"a1", "a2", "a3"} - limited
    assert spread(counts) <= 1
    for account in limited:
        engine.accounts.close(account)
    assert spread(shares(engine, spec, 31)) <= 1


def test_round_robin_is_even_in_a_large_pool_too(engine):
    spec = pool(128)
    for number in range(3, 129, 3):
        engine.accounts.trip(f"a{number}", 1000)
    counts = shares(engine, spec, 3 * 86 + 40)
    assert len(counts) == 86
    assert spread(counts) == 1


def test_round_robin_with_accounts_coming_and_going(engine):
    assert spread(shares(engine, pool(3), 10)) <= 1
    assert spread(shares(engine, pool(4), 13)) <= 1
    assert spread(shares(engine, pool(("a2", "a4")), 11)) <= 1
    assert spread(shares(engine, pool(5), 22)) <= 1


def test_round_robin_when_one_account_has_less_room(engine):
    spec = pool(3, bucket(1000))
    lean = bucket(4)
    assert spread(shares(engine, spec, 9)) <= 1
    engine.call(pool(1, lean))
    counts = shares(engine, spec, 31)
    assert spread(counts) <= 1


@pytest.mark.parametrize("seed", range(12))
def test_round_robin_through_any_history(engine, clock, seed):
    """Of three accounts one or two are limited for a while, others are added and removed meanwhile: even to one."""
    chance = random.Random(seed)
    names = ["a1", "a2", "a3"]
    limited: set[str] = set()
    for number in range(4, 34):
        happening = chance.choice(["limit", "limit", "free", "free", "add", "remove"])
        if happening == "limit" and len(limited & set(names)) < min(2, len(names) - 1):
            account = chance.choice([name for name in names if name not in limited])
            only = pool((account,))
            engine.call(only, CallOutcome("rate_limited", status=429, retry_after=chance.uniform(100, 900)))
            limited.add(account)
        elif happening == "free" and limited:
            account = chance.choice(sorted(limited))
            engine.accounts.clear_cooldown(account)
            limited.discard(account)
        elif happening == "add":
            names.insert(chance.randrange(len(names) + 1), f"a{number}")
        elif happening == "remove" and len(names) > 3:
            gone = chance.choice(names)
            names.remove(gone)
        free = set(names) - limited
        if not free:
            continue
        counts = shares(engine, pool(tuple(names)), chance.randrange(2, 14))
        assert set(counts) <= free
        assert max(counts.values()) - min(counts[name] for name in free) <= 1, (happening, counts)
        clock.move(0.1)


def test_weighted_random_follows_the_weights_within_three_sigma(engine):
    weights = {"a1": 1, "a2": 2, "a3": 5, "a4": 0}
    spec = pool(
        tuple(AccountSpec(name, name, weight=weight) for name, weight in weights.items()),
        strategy="weighted_random",
    )
    calls = 2000
    counts = shares(engine, spec, calls)
    for name, weight in weights.items():
        share = weight / 8
        sigma = (calls * share * (1 - share)) ** 0.5
        assert abs(counts[name] - calls * share) <= 3 * sigma, counts


def test_least_recently_used_counts_the_end_of_a_call_too(engine, clock):
    spec = pool(2, strategy="least_recently_used")
    long = engine.take(spec)
    clock.move(1)
    short = engine.take(spec)
    engine.settle(short.lease)
    clock.move(1)
    engine.settle(long.lease)
    clock.move(1)
    assert engine.take(spec).account_id == short.account_id


def test_health_prefers_the_healthy_and_shares_among_equals(engine, clock):
    spec = pool(3, strategy="health")
    ill = engine.call(spec, SERVER)[0]
    for _ in range(2):
        engine.call(pool((ill,)), SERVER)
    clock.move(5)
    counts = shares(engine, spec, 20)
    assert counts[ill] <= 1
    assert len(counts) >= 2


@pytest.mark.parametrize("strategy", ["health", "round_robin", "least_recently_used", "most_headroom"])
@pytest.mark.parametrize("size", [2, 4, 10])
def test_an_available_account_always_gets_some_calls(engine, clock, strategy, size):
    """After one failure, while calls come one by one: about 2 %."""
    spec = pool(size, strategy=strategy)
    failed = engine.call(spec, SERVER)[0]
    clock.move(5)
    counts = Counter()
    for _ in range(300):
        counts[engine.call(spec)[0]] += 1
        clock.move(0.01)
    assert counts[failed] >= 5, counts


def test_an_account_that_goes_on_failing_gets_few_calls(engine, clock):
    spec = pool(4, strategy="health", breaker=pool(1).breaker.__class__(failures=1000))
    counts = Counter()
    for _ in range(600):
        admission = engine.take(spec)
        counts[admission.account_id] += 1
        engine.settle(admission.lease, SERVER if admission.account_id == "a2" else CallOutcome("ok"))
        clock.move(0.05)
    assert 6 <= counts["a2"] <= 60, counts


def test_where_calls_are_rare_it_is_called_within_minutes(engine, clock):
    spec = pool(3, strategy="health")
    failed = engine.call(spec, SERVER)[0]
    for _ in range(2):
        engine.call(pool((failed,)), SERVER)
    clock.move(5)
    calls = 0
    while engine.call(spec)[0] != failed:
        calls += 1
        clock.move(5)
    assert calls * 5 <= 120


def test_most_headroom_learns_of_an_account_again(engine, clock):
    """What is known of it is from long ago: somebody else used it up then."""
    spec = pool(2, strategy="most_headroom")
    learned = {"requests": LearnedQuota(limit=100, remaining=10, reset_after=86400.0, kind="window")}
    low = engine.call(spec, CallOutcome("ok", learned=learned))[0]
    assert engine.accounts.states(spec)
    assert 2 <= shares(engine, spec, 200)[low] <= 10


def test_large_pools_give_the_ill_little(engine, clock):
    spec = pool(80, strategy="health", breaker=pool(1).breaker.__class__(failures=1000))
    ill = {f"a{number}" for number in range(1, 9)}
    counts = Counter()
    for _ in range(4000):
        admission = engine.take(spec)
        counts[admission.account_id in ill] += 1
        engine.settle(admission.lease, SERVER if admission.account_id in ill else CallOutcome("ok"))
        clock.move(0.01)
    assert counts[True] / 4000 < 0.08, counts


def test_most_headroom(engine):
    spec = pool(2, bucket(100, "tokens"), strategy="most_headroom")
    big = engine.take(spec, cost={"tokens": 60}).account_id
    small = {engine.take(spec, cost={"tokens": 10}).account_id for _ in range(5)}
    assert big not in small


def test_after_a_servers_error_another_account_is_tried_first_but_it_is_not_blocked(engine, clock):
    spec = pool(2)
    failed, settled = engine.call(spec, SERVER)
    assert settled.cooldown == 0.0
    other = {engine.call(spec)[0] for _ in range(4)}
    assert failed not in other
    for account in other:
        engine.accounts.disable(account)
    assert engine.take(spec).account_id == failed


def test_an_unknown_strategy_is_an_error(engine):
    with pytest.raises(ValueError, match="strategy"):
        engine.take(pool(1, strategy="best"))
