"""Explaining and admitting are one decision: whatever is said is what the next admission answers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from quotas.engine.types import AccountSpec, AdmitRequest, BreakerSpec, CallOutcome, ConcurrencySpec
from tests.integration.quotas.engine.accounts.conftest import OK, SERVER, bucket, pool

LIMITED = CallOutcome("rate_limited", status=429, retry_after=900.0)


def spare(size=1, *limits, **fields):
    names = tuple(f"b{number}" for number in range(1, size + 1))
    return pool(names, *limits, id="spare", name="spare", **fields)


def nothing(engine, spec):
    pass


def cooling(engine, spec):
    for account in spec.accounts:
        engine.accounts.cool(account.id, 30.0, "rate_limited")


def tripped(engine, spec):
    for account in spec.accounts:
        engine.accounts.trip(account.id, 40.0)


def probing(engine, spec):
    for account in spec.accounts:
        engine.accounts.trip(account.id, 10.0)
    engine.clock.move(10)
    for _ in spec.accounts:
        assert engine.take(spec).probe


def disabled(engine, spec):
    for account in spec.accounts:
        engine.accounts.disable(account.id)


def used_up(engine, spec):
    for _ in spec.accounts:
        engine.take(spec, cost={"requests": 10})


def pool_cooling(engine, spec):
    engine.call(spec, replace(LIMITED, scope="pool"))


def tried(engine, spec):
    whole = replace(spec, accounts=tuple(AccountSpec(f"{spec.id}{n}", f"x{n}") for n in range(6)))
    leases = [engine.take(whole) for _ in range(3)]
    for one in leases:
        engine.settle(one.lease, LIMITED)
    assert engine.take(whole)


def model_refused(engine, spec):
    for _ in spec.accounts:
        engine.call(spec, replace(LIMITED, scope="model"), model="large")


def key_refused(engine, spec):
    for _ in spec.accounts:
        engine.call(spec, replace(LIMITED, scope="key"), key="chat")


STATES = [
    nothing, cooling, tripped, probing, disabled, used_up, pool_cooling, tried, model_refused, key_refused,
]  # fmt: skip
REQUESTS = [
    {},
    {"key": "chat", "model": "large"},
    {"priority": 9},
    {"cost": {"requests": 11}},
    {"without": "a1"},
]


@pytest.mark.parametrize("asked", REQUESTS, ids=str)
@pytest.mark.parametrize("paused", [False, True])
@pytest.mark.parametrize("second", [None, *STATES])
@pytest.mark.parametrize("first", STATES)
def test_what_is_explained_is_what_is_admitted(engine, first, second, paused, asked):
    spec = pool(2, bucket(10), strategy="health")
    other = spare(2, bucket(10))
    first(engine, spec)
    fallbacks = ()
    if second is not None:
        second(engine, other)
        fallbacks = (other,)
    request = AdmitRequest(pool=replace(spec, paused=paused), fallbacks=fallbacks, **asked)
    explained = engine.accounts.explain(request)
    answer = engine.accounts.admit(request)
    for name in ("allowed", "account_id", "pool", "impossible", "disabled", "reasons", "probe"):
        assert getattr(explained.admission, name) == getattr(answer, name), name
    assert explained.admission.retry_after == pytest.approx(answer.retry_after)
    chosen = [view.id for one in explained.pools for view in one.accounts if view.chosen]
    assert chosen == ([answer.account_id] if answer else [])
    assert explained.admission.lease is None


def test_a_free_fallback_is_reported(engine):
    spec, other = pool(1), spare()
    cooling(engine, spec)
    explained = engine.accounts.explain(AdmitRequest(pool=spec, fallbacks=(other,)))
    assert (explained.admission.account_id, explained.admission.pool) == ("b1", "spare")
    assert [(one.pool, [view.chosen for view in one.accounts]) for one in explained.pools] == [
        ("llm", [False]),
        ("spare", [True]),
    ]


def test_sticky_keys_are_shown_as_they_are_bound(engine):
    spec = pool(4, sticky=True)
    bound = [engine.take(spec, key=f"c{number}").account_id for number in range(4)]
    for number, account in enumerate(bound):
        explained = engine.accounts.explain(AdmitRequest(pool=spec, key=f"c{number}"))
        assert explained.admission.account_id == account


def test_in_flight_limits_and_soft_backoff_are_reported(engine, clock):
    spec = pool(2, concurrency=ConcurrencySpec(1, 1, 1), breaker=BreakerSpec(failures=100))
    failed = engine.call(spec, SERVER)[0]
    explained = engine.accounts.explain(AdmitRequest(pool=spec))
    taken = engine.take(spec)
    assert explained.admission.account_id == taken.account_id != failed
    engine.take(spec)
    explained = engine.accounts.explain(AdmitRequest(pool=spec))
    denied = engine.take(spec)
    assert not denied and explained.admission.reasons == denied.reasons == {"concurrency": 2}
    engine.settle(taken.lease, OK)


@pytest.mark.parametrize("strategy", ["round_robin", "health", "least_recently_used", "most_headroom"])
def test_whose_turn_it_is(engine, clock, strategy):
    spec = pool(4, bucket(1000), strategy=strategy, breaker=BreakerSpec(failures=1000))
    for number in range(150):
        explained = engine.accounts.explain(AdmitRequest(pool=spec))
        taken = engine.take(spec)
        assert explained.admission.account_id == taken.account_id
        engine.settle(taken.lease, SERVER if number % 11 == 0 else OK)
        clock.move(0.1)
